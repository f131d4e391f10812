"""The channel that all query languages share: one verdict and some flags."""


def flag(bag: dict[str, float], **flags: object) -> None:
    """Add the flags that hold."""
    for name, there in flags.items():
        if there:
            bag[f"q.{name.replace('_', '-')}"] = 1.0


def choose(bag: dict[str, float], *cases: tuple[object, str], otherwise: str) -> None:
    """Add the first verdict whose case holds."""
    verdict = next((name for there, name in cases if there), otherwise)
    bag[f"q={verdict}"] = 1.0
