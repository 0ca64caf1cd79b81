"""A mistake: where it stands, what is wrong, what to do. All of them are told at once."""

from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One mistake at `path`; `also` are other paths whose values it depends on."""

    path: Path
    text: str
    also: tuple[Path, ...] = ()

    @property
    def dotted(self) -> str:
        return ".".join(map(str, self.path))
