"""What a supervisor may tell the agent of a live call."""

from __future__ import annotations

from django import forms

from sessions_app.models import CallCommand


class WhisperForm(forms.Form):
    """One sentence or two; the field's length is the column's."""

    text = forms.CharField(
        label="Whisper to the agent",
        max_length=CallCommand._meta.get_field("text").max_length,
        help_text="The caller does not hear it; the agent takes it up when it speaks next.",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "placeholder": "Offer to ring back tomorrow at nine"}
        ),
    )

    def told(self) -> str:
        """What is wrong with it, in one line."""
        wrong = " ".join(str(error) for error in self.errors["text"])
        return f"Nothing was whispered. {wrong}"
