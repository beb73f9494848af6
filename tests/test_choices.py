"""Which kernel is the fastest is remembered for speed alone: whatever the file holds, only able kernels are named."""

import json

import pytest

from edged.offload import choices, cubins
from edged.offload.choices import Choices

PRODUCT = (2, 300, 300, 18, 64, 64, 9, 1, 4)
TIMES = {"direct": 2.0, "dots": 1.5, "tensor": 0.5}


def test_what_was_measured_is_remembered_by_the_next(tmp_path):
    path = tmp_path / "kernels.json"
    first = Choices(path, "chip A", 87)
    assert first.of(PRODUCT) is None
    assert first.keep(PRODUCT, TIMES) == "tensor" == first.of(PRODUCT)
    assert Choices(path, "chip A", 87).of(PRODUCT) == "tensor"
    assert Choices(path, "chip B", 87).of(PRODUCT) is None
    assert Choices(None, "chip A", 87).keep(PRODUCT, TIMES) == "tensor"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kernels.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b'{"of": "chip A"}',
                                     b'{"of": "chip A", "fastest": 3}', b'{"of": "chip A", "fastest": ["direct"]}',
                                     b'{"of": "chip A", "fastest": {"2 300 300 18 64 64 9 1 4": "rm -rf"}}',
                                     b'{"of": "chip A", "fastest": {"2 300 300 18 64 64 9 1 4": null}}'])
def test_a_file_that_is_not_ours_is_measured_again(tmp_path, content):
    path = tmp_path / "kernels.json"
    path.write_bytes(content)
    found = Choices(path, "chip A", 87)
    assert found.of(PRODUCT) is None
    found.keep(PRODUCT, TIMES)
    assert json.loads(path.read_text())["fastest"]["2 300 300 18 64 64 9 1 4"] == "tensor"


def test_a_kernel_that_is_not_exact_for_a_product_is_never_named(tmp_path):
    deep = PRODUCT[:4] + (cubins.SUM_MAX,) + PRODUCT[5:]
    path = tmp_path / "kernels.json"
    path.write_text(json.dumps({"of": "chip A", "fastest": {" ".join(map(str, deep)): "tensor"}}))
    assert Choices(path, "chip A", 87).of(deep) is None
    path.write_text(json.dumps({"of": "chip A", "fastest": {" ".join(map(str, PRODUCT)): "deep"}}))
    assert Choices(path, "chip A", 72).of(PRODUCT) is None and Choices(path, "chip A", 87).of(PRODUCT) == "deep"


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path):
    found = Choices(tmp_path / "nowhere" / "kernels.json", "chip A", 87)
    assert found.keep(PRODUCT, TIMES) == "tensor" == found.of(PRODUCT)


def test_the_file_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "PRODUCTS_MAX", 5)
    found = Choices(tmp_path / "kernels.json", "chip A", 87)
    for frames in range(1, 20):
        found.keep((2, frames) + PRODUCT[2:], TIMES)
    assert len(json.loads((tmp_path / "kernels.json").read_text())["fastest"]) <= 5
