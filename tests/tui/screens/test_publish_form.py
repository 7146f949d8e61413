"""What the publish form says of a message, without a console."""

from __future__ import annotations

import pytest

from dmq_tui.screens.publish.form import MessageForm, body_notes


@pytest.mark.parametrize("begin", ["x", "[", '{"id": "'])
def test_a_body_of_two_megabytes_has_its_size_told_and_is_not_parsed(begin: str) -> None:
    note = "".join(cell.text for cell in body_notes(MessageForm(body=begin + "x" * 2_000_000)))
    assert note == "2.0 MB · too long for the JSON check"
