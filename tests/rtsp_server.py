"""A camera for tests: an RTSP server on the loopback interface, JPEG pictures over interleaved RTP.

Source: RFC 2326 (RTSP), RFC 2435 (RTP payload of JPEG). It can fall silent or hang up in the middle.
"""

import re
import socketserver
import struct
import threading

import cv2
import numpy as np

WIDTH, HEIGHT, RATE = 160, 120, 25
PAYLOAD_JPEG = 26
FRAGMENT_BYTES = 1400


class RtspCamera(socketserver.ThreadingTCPServer):
    """Serves from its making to ``close``. silent, gone : Events that stop the pictures, or the connection"""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Session)
        self.silent, self.gone, self.over = threading.Event(), threading.Event(), threading.Event()
        self.plays = 0
        self.address = "rtsp://viewer:hush@127.0.0.1:{}/gate".format(self.server_address[1])
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self.over.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Session(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while not self.server.over.is_set():
                request = self._request()
                if request is None:
                    return
                method, number = request
                if method == "DESCRIBE":
                    self._answer(number, "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=gate\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                                         "m=video 0 RTP/AVP {}\r\na=control:track\r\n".format(PAYLOAD_JPEG))
                else:
                    self._answer(number)
                if method == "PLAY":
                    self.server.plays += 1
                    return self._play()
        except OSError:
            pass  # the viewer went away

    def _request(self):
        lines = []
        while True:
            line = self.rfile.readline().decode("ascii").strip()
            if line:
                lines.append(line)
            elif not lines:
                return None
            else:
                number = re.search(r"CSeq: *(\d+)", "\n".join(lines), re.IGNORECASE)
                return lines[0].split()[0], number.group(1)

    def _answer(self, number, body=""):
        head = "RTSP/1.0 200 OK\r\nCSeq: {}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\nSession: 1\r\n" \
               "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n".format(number)
        if body:
            head += "Content-Type: application/sdp\r\nContent-Length: {}\r\n".format(len(body))
        self.wfile.write((head + "\r\n" + body).encode("ascii"))

    def _play(self):
        sequence = 0
        for index in range(100000):
            if self.server.over.wait(1 / RATE) or self.server.gone.is_set():
                return
            if self.server.silent.is_set():
                continue
            picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
            cv2.circle(picture, (8 * index % WIDTH, 60), 10, (255, 255, 255), -1)
            for packet in _packets(picture, index * 90000 // RATE, sequence):
                sequence += 1
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)


def _packets(picture, time, sequence):
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    tables, at = b"", 2
    while jpeg[at + 1] != 0xda:
        size = struct.unpack(">H", jpeg[at + 2:at + 4])[0]
        if jpeg[at + 1] == 0xdb:
            segment = jpeg[at + 4:at + 2 + size]
            tables += b"".join(segment[begin + 1:begin + 65] for begin in range(0, len(segment), 65))
        at += 2 + size
    scan = jpeg[at + 2 + struct.unpack(">H", jpeg[at + 2:at + 4])[0]:-2]
    for offset in range(0, len(scan), FRAGMENT_BYTES):
        last = offset + FRAGMENT_BYTES >= len(scan)
        head = struct.pack(">BBHII", 0x80, PAYLOAD_JPEG | (0x80 if last else 0), sequence & 0xffff, time, 1)
        head += struct.pack(">I", offset) + bytes([1, 255, WIDTH // 8, HEIGHT // 8])
        if offset == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        sequence += 1
        yield head + scan[offset:offset + FRAGMENT_BYTES]
