"""`dime doctor`: looks at every node before a long run. Nothing heavy is imported here: `toolkit.doctor.local` needs none.

`command.py` is what a rank does, `turns.py` how ranks take the checks together, `board.py` how they talk; the checks lie in a
file per subject and are listed in `checks.py`.
"""
