"""Which recording shows what: the table behind the corpus, of sources whose licences let a model be trained on them.

Labels are the generator's (edged.camera.motion.LABELS). They follow the recordings' own index files and were checked
by eye, frame by frame, which is where the spans come from. What no label fits stands under the least severe one that
it could be taken for: exercises, kneeling, dancing and bending are standing; push-ups and crawling on hands and knees
are sitting, as the generator has it. Left out: toy chairs and toy falls whose poses nobody takes, jumps without a
flight, creeping on the belly, perching on a high stool, takes that stand still in mid-stride, and the
vicon_physical_action recordings (tests only).
"""

from typing import List, NamedTuple, Tuple

from edged.camera.acts import FALLING, FIGHTING, JUMPING, LYING, RUNNING, SITTING, STANDING, WALKING, WAVING

TRAIN, HELD_OUT = SPLITS = ("train", "held-out")
CMU = ("The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from "
       "NSF EIA-0196217.")
_CC0, _APACHE, _MIT = "CC0-1.0", "Apache-2.0", "MIT"


class Source(NamedTuple):
    """folder below the data folder; head_leans: see retarget.moves; ground_m: how far to lift every take, None where
    each take says itself where its ground is; held_out: subjects, or all of it."""

    folder: str
    licence: str
    head_leans: float
    ground_m: object = None
    held_out: Tuple[str, ...] = ()


class Take(NamedTuple):
    """span and shows: first and last frame at 30 a second, of what is taken and, within that, of what the label means;
    loop: the last frame is the first again; planted: the lowest joint is on the ground in every frame; who: the subject
    where the file's name does not say."""

    source: str
    file: str
    label: str
    span: Tuple[int, int] = (0, 100000)
    shows: Tuple[int, int] = (0, 100000)
    loop: bool = False
    planted: bool = False
    who: str = ""

    @property
    def subject(self) -> str:
        """CMU's number where it is known, else the source."""
        if self.who:
            return self.who
        numbered = self.source.startswith("cmu_") and self.file[0].isdigit()
        return "cmu_{:02d}".format(int(self.file.split("_")[0])) if numbered else self.source


SOURCES = {
    "cmu_bvh60": Source("mocap/cmu_bvh60", CMU, 0.23, None, ("cmu_02",)),
    "cmu_expmap": Source("mocap/cmu_expmap", CMU, 0.08, None, ("cmu_02",)),
    "cmu_amc": Source("mocap/cmu_amc", CMU, 0.2),
    "deepmimic": Source("mocap/deepmimic", _MIT, 0.15),
    "cmu_86": Source("motion/cmu_86", CMU, 0.13),
    "cmu_13_14": Source("motion/cmu_13_14", CMU, 0.05, None, ("cmu_14",)),
    "cmu_91": Source("motion/cmu_91", CMU, 0.3),
    "quaternius": Source("motion/quaternius", _CC0, 0.75, -0.03),
    "mesh2motion": Source("motion/mesh2motion", _CC0, 0.7, -0.03, ("mesh2motion",)),
    "kaykit": Source("motion/kaykit", _CC0, 0.0, -0.11),
    "peoplesanspeople": Source("motion/peoplesanspeople", _APACHE, 0.3),
}  # type: Dict[str, Source]


def _takes() -> List[Take]:
    made = []  # type: List[Take]

    def add(source, label, *files, **how):
        made.extend(Take(source, file, label, **how) for file in files)

    def parts(source, file, *spans):
        made.extend(Take(source, file, label, (first, last)) for label, first, last in spans)

    add("cmu_bvh60", WALKING, "002_01.bvh", "002_02.bvh", "005_01.bvh", "006_01.bvh",
        *("007_{:02d}.bvh".format(trial) for trial in range(1, 13)), span=(2, 100000))
    add("cmu_bvh60", WALKING, "003_01.bvh", "003_02.bvh", span=(14, 100000), planted=True)  # over steps
    add("cmu_bvh60", RUNNING, "002_03.bvh", span=(2, 100000))
    parts("cmu_bvh60", "002_04.bvh", (JUMPING, 2, 63), (STANDING, 66, 119))
    parts("cmu_bvh60", "002_05.bvh", (FIGHTING, 20, 425), (STANDING, 430, 460))
    # Frame for frame CMU's 02_01; none of the others is a take of another source.
    add("cmu_expmap", WALKING, "train_walking_1.txt", span=(2, 100000), who="cmu_02")
    for trial in range(2, 6):
        add("cmu_expmap", WALKING, "train_walking_{}.txt".format(trial), span=(2, 100000))
    for trial in range(1, 6):
        add("cmu_expmap", RUNNING, "train_running_{}.txt".format(trial), span=(2, 100000))
    add("cmu_expmap", JUMPING, "train_jumping_1.txt", span=(2, 100), shows=(40, 74))
    add("cmu_expmap", JUMPING, "train_jumping_2.txt", span=(2, 370), shows=(20, 368))
    add("cmu_expmap", JUMPING, "train_jumping_3.txt", span=(2, 104), shows=(34, 82))
    add("cmu_expmap", JUMPING, "train_jumping_4.txt", span=(2, 82), shows=(28, 60))
    add("cmu_expmap", JUMPING, "train_jumping_5.txt", span=(3, 86), shows=(10, 56))
    add("cmu_amc", WALKING, "35_01.amc")
    add("cmu_amc", STANDING, "49_18.amc", "49_19.amc", "49_20.amc")

    add("deepmimic", SITTING, "humanoid3d_crawl.txt")
    add("deepmimic", LYING, "humanoid3d_getup_facedown.txt", span=(6, 90), shows=(0, 13))
    add("deepmimic", LYING, "humanoid3d_getup_faceup.txt", shows=(0, 16))
    add("deepmimic", JUMPING, "humanoid3d_jump.txt", shows=(10, 44))
    add("deepmimic", JUMPING, "humanoid3d_roll.txt", shows=(6, 46))
    add("deepmimic", FIGHTING, "humanoid3d_kick.txt", shows=(10, 38))
    add("deepmimic", FIGHTING, "humanoid3d_punch.txt", "humanoid3d_spinkick.txt")
    add("deepmimic", WALKING, "humanoid3d_walk.txt", loop=True)
    add("deepmimic", RUNNING, "humanoid3d_run.txt", loop=True)

    parts("cmu_86", "86_01.npz", (WALKING, 2, 126), (JUMPING, 128, 282), (WALKING, 292, 505), (FIGHTING, 525, 628),
          (WALKING, 640, 795), (FIGHTING, 805, 1015), (FIGHTING, 1015, 1143))
    parts("cmu_86", "86_09.npz", (WALKING, 2, 232), (STANDING, 736, 905), (WALKING, 910, 1198))
    parts("cmu_13_14", "13_29.npz", (JUMPING, 1, 118), (STANDING, 122, 690), (STANDING, 690, 945),
          (STANDING, 945, 1147))
    parts("cmu_13_14", "13_30.npz", (JUMPING, 1, 54), (STANDING, 58, 480), (RUNNING, 486, 614))
    parts("cmu_13_14", "13_31.npz", (STANDING, 1, 398), (RUNNING, 404, 510), (STANDING, 514, 678), (JUMPING, 682, 752))
    parts("cmu_13_14", "14_14.npz", (JUMPING, 8, 112), (RUNNING, 118, 258), (STANDING, 262, 1162))
    parts("cmu_13_14", "14_20.npz", (JUMPING, 4, 106), (STANDING, 110, 1158))
    for trial, span in ((48, (34, 78)), (49, (24, 82)), (50, (30, 140)), (51, (12, 70)), (52, (66, 106)),
                        (53, (66, 106)), (54, (34, 140))):
        add("cmu_91", JUMPING, "91_{}.npz".format(trial), span=(3, 100000), shows=span)

    add("quaternius", STANDING, "Crouch_Idle_Loop.npz", "Dance_Loop.npz", "Idle_Loop.npz", "Idle_Talking_Loop.npz",
        "Idle_Torch_Loop.npz", loop=True)
    add("quaternius", STANDING, "Fixing_Kneeling.npz", "Interact.npz", "PickUp_Table.npz")
    add("quaternius", WALKING, "Crouch_Fwd_Loop.npz", "Walk_Formal_Loop.npz", "Walk_Loop.npz", loop=True)
    add("quaternius", RUNNING, "Jog_Fwd_Loop.npz", "Sprint_Loop.npz", loop=True)
    add("quaternius", FIGHTING, "Punch_Cross.npz", "Punch_Jab.npz", "Sword_Attack.npz", loop=True)
    add("quaternius", FIGHTING, "Punch_Enter.npz", "Hit_Chest.npz", "Hit_Head.npz")
    add("quaternius", SITTING, "Driving_Loop.npz", "Sitting_Idle_Loop.npz", "Sitting_Talking_Loop.npz", loop=True)
    add("quaternius", SITTING, "Sitting_Enter.npz", shows=(22, 38))
    add("quaternius", SITTING, "Sitting_Exit.npz", shows=(0, 10))
    add("quaternius", JUMPING, "Roll.npz")
    add("quaternius", FALLING, "Death01.npz", shows=(6, 44))

    add("mesh2motion", STANDING, "Angry.npz", "Bow.npz", "Confused.npz", "Consume_Item.npz", "Dizzy.npz",
        "Head_Nod.npz", "Idle_Listening.npz", "Kneeling_Tired.npz", "Reject.npz", "Tired_Hunched.npz", loop=True)
    add("mesh2motion", STANDING, "Throw_Object.npz", "Victory_Fist_Pump.npz")
    add("mesh2motion", RUNNING, "Run_Anime.npz", loop=True)
    add("mesh2motion", FIGHTING, "Fighting_Idle.npz", "Fighting_Left_Jab.npz", "Fighting_Right_Jab.npz", loop=True)
    add("mesh2motion", WAVING, "Greeting.npz", shows=(20, 125))
    add("mesh2motion", JUMPING, "Jumping_Jacks.npz", loop=True)
    add("mesh2motion", JUMPING, "Victory.npz", shows=(10, 44))
    add("mesh2motion", SITTING, "Meditate.npz", "Pushup.npz", loop=True)
    add("mesh2motion", LYING, "Sleeping.npz", loop=True)

    add("kaykit", STANDING, "Cheer.npz", "Idle.npz", "PickUp.npz", loop=True)
    add("kaykit", STANDING, "Throw.npz")
    add("kaykit", WALKING, "Walking_A.npz", "Walking_B.npz", "Walking_C.npz", loop=True)
    add("kaykit", FIGHTING, "1H_Melee_Attack_Chop.npz", "Unarmed_Melee_Attack_Kick.npz",
        "Unarmed_Melee_Attack_Punch_A.npz", "Unarmed_Melee_Attack_Punch_B.npz", loop=True)
    add("kaykit", FIGHTING, "Block.npz", "Hit_A.npz", "Hit_B.npz")
    add("kaykit", JUMPING, "Jump_Full_Short.npz", shows=(6, 26))
    add("kaykit", SITTING, "Sit_Chair_Idle.npz", "Sit_Floor_Idle.npz", loop=True, planted=True)
    add("kaykit", SITTING, "Sit_Floor_Down.npz", shows=(14, 30), planted=True)
    add("kaykit", SITTING, "Sit_Floor_StandUp.npz", shows=(0, 10), planted=True)
    add("kaykit", LYING, "Lie_Idle.npz", loop=True)
    add("kaykit", LYING, "Lie_Down.npz", shows=(64, 90))
    add("kaykit", LYING, "Lie_StandUp.npz", shows=(0, 16))
    add("kaykit", FALLING, "Death_B.npz", shows=(36, 56))

    add("peoplesanspeople", STANDING, "Idle.npz", "PutGlassesOn.npz", "TakeObjectAttempt.npz", "TakeObjects.npz",
        span=(6, 100000))
    add("peoplesanspeople", STANDING, "Stand--Idle.anim.npz", loop=True)
    parts("peoplesanspeople", "Walk.npz", (WALKING, 14, 108), (WALKING, 150, 385))
    parts("peoplesanspeople", "Run.npz", (RUNNING, 46, 88), (RUNNING, 208, 262))
    add("peoplesanspeople", WALKING, "Locomotion--Walk_N.anim.npz", loop=True)
    add("peoplesanspeople", RUNNING, "Locomotion--Run_N.anim.npz", "Locomotion--Run_S.anim.npz", loop=True)
    add("peoplesanspeople", JUMPING, "Jump--Jump.anim.npz", shows=(4, 44))
    return made


TAKES = tuple(_takes())


def split_of(take: Take) -> str:
    return HELD_OUT if take.subject in SOURCES[take.source].held_out else TRAIN
