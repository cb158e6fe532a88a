"""Docstrings of functions begin with a verb: `Return the ...`, not `What ... is`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = sorted(
    path for path in (ROOT / "ppo_lab").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
)
WORDS = """
    Abandon Accept Accumulate Act Add Advance Allocate Answer Append Apply Arrange Ask Assemble Assert Assign Attach
    Attend Average Begin Bind Bound Break Broadcast Build Call Cancel Capture Cast Change Check Choose Clear Climb
    Clip Close Collect Combine Compare Compile Complete Compute Concatenate Continue Convert Copy Count Create Cut
    Decide Declare Decode Delegate Delete Derive Describe Detach Detect Disable Discard Divide Do Download Drag Draw
    Drop Emit Empty Enable Encode End Enlarge Ensure Enter Escape Estimate Evaluate Execute Exit Expand Export
    Extract Fail Fall Fetch Fill Filter Find Finish Fit Flatten Flip Flush Forget Fork Format Forward Free Freeze
    Gather Generate Get Give Go Group Guard Hand Handle Hash Hide Hold Ignore Import Increase Index Infer Initialize
    Insert Inspect Install Interrupt Invert Iterate Join Keep Kill Label Launch Lay Leave Lengthen Let Limit List
    Load Locate Lock Log Look Make Map Mark Mask Match Measure Merge Modify Move Multiply Name Normalise Normalize
    Note Notify Observe Open Order Pack Pad Parse Pass Pause Perform Pick Place Plan Play Plot Poll Precompute
    Predict Prefix Prepare Print Probe Process Produce Project Prune Push Put Raise Rank Rate Read Rebuild Receive
    Recompute Record Recreate Reduce Refresh Refuse Register Reject Release Reload Remember Remove Rename Render
    Reorder Repeat Replace Replay Report Request Require Rescale Reset Reshape Resize Resolve Restart Restore Resume
    Return Reverse Rewind Rewrite Roll Round Run Sample Save Say Scale Schedule Score Seal Search Seed Select Send
    Separate Serve Set Shift Shorten Show Shrink Shuffle Shut Sign Simulate Skip Slice Smooth Snapshot Solve Sort
    Split Squash Stack Start State Steer Step Stop Store Stretch Subtract Suggest Sum Summarize Sweep Switch Take
    Tell Test Thin Toggle Track Train Transform Translate Truncate Try Turn Undo Unflatten Unify Unpack Unwrap
    Update Use Validate Verify Visit Wait Walk Warm Warn Wrap Write Yield Zero
"""
VERBS = frozenset(WORDS.split())


def without_a_verb(source: str) -> list[str]:
    """Return `line: name: first line` of every function whose docstring begins otherwise; properties are nouns."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text is None or any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        if text.split()[0].strip(".,:;") not in VERBS:
            found.append(f"{node.lineno}: {node.name}: {text.splitlines()[0]}")
    return found


def test_what_is_found():
    assert without_a_verb('def loss():\n    "What the update minimises."\n') == ["1: loss: What the update minimises."]
    assert not without_a_verb('def loss():\n    "Return what the update minimises."\n')
    assert not without_a_verb('@property\ndef loss(self):\n    "What the update minimises."\n')


@pytest.mark.parametrize("place", [*PLACES, ROOT / "environment"], ids=lambda path: path.stem)
def test_docstrings_of_functions_begin_with_a_verb(place):
    wrong = []
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        found = without_a_verb(file.read_text(encoding="utf-8"))
        wrong += [f"{file.relative_to(ROOT)}:{line}" for line in found]
    assert not wrong, "\n".join(wrong)
