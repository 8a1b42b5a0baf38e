"""Students in the forms in which other libraries load them; each is loaded back by that library and compared."""

from toolkit.export.command import export_run

__all__ = ["export_run"]
