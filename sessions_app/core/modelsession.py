"""The model's session, as far as the call has to know of it: there, gone, begun anew, renewed."""

from __future__ import annotations

from sessions_app.core.events import ChangeVoice

#: So often it may begin anew before something of it has been heard; then it is given up.
BEGINNINGS_MOST = 3
#: A session of known length is renewed so long before its end, at the first quiet moment; a short
#: one after so much of it.
RENEW_BEFORE_S = 600.0
RENEW_SHARE = 0.8
#: So shortly before its end it is renewed wherever that cuts nobody off.
LAST_CALL_S = 30.0
#: From a renewal that failed to the next try.
RENEW_AGAIN_S = 5.0


class ModelSession:
    """Times are of the call's clock."""

    def __init__(self) -> None:
        self.ready = False
        #: The voice that failed was given up for this one, which every session is told.
        self.voice: ChangeVoice | None = None
        self._begun_anew = 0
        #: It has begun anew after a fault, and nothing of it has been heard since.
        self.doubtful = False
        #: It did not hear what our ear heard.
        self.suspect = False
        self._renew_at_s: float | None = None
        self._last_call_s: float | None = None
        #: Another session is being made beside it; and there is one.
        self._reserve_asked = False
        self.has_reserve = False

    def came(self, now: float, life_s: float | None) -> None:
        self.ready, self.suspect = True, False
        self._renew_at_s = self._last_call_s = None
        if life_s is not None and life_s > 0:
            self._renew_at_s = now + max(life_s - RENEW_BEFORE_S, life_s * RENEW_SHARE)
            self._last_call_s = now + max(life_s - LAST_CALL_S, life_s * RENEW_SHARE)

    def went(self) -> None:
        self.ready = self.has_reserve = self._reserve_asked = False
        self._renew_at_s = self._last_call_s = None

    def ask_reserve(self) -> None:
        self._reserve_asked = True

    def reserve_opened(self) -> None:
        """Of one that was asked for in a session's place that is gone, nothing is expected."""
        self.has_reserve, self._reserve_asked = self._reserve_asked, False

    def reserve_failed(self, now: float) -> None:
        """It is tried again, later, and for as long as there is time."""
        self._reserve_asked = False
        for at_s in (self._renew_at_s, self._last_call_s):
            if at_s is not None and at_s <= now:
                self._renew_at_s = self._last_call_s = now + RENEW_AGAIN_S

    def may_begin_anew(self, *, renewed: bool) -> bool:
        """Whether another session is worth a try; counts it. `renewed`: the one there is has done
        nothing wrong.
        """
        self._begun_anew += 1
        self.doubtful = self.doubtful or not renewed
        return self._begun_anew <= BEGINNINGS_MOST

    def proved_itself(self) -> None:
        """Something of it has been heard to its end."""
        self._begun_anew = 0
        self.doubtful = self.suspect = False

    def renew_at_s(self, *, quiet: bool) -> float | None:
        """When it has to be renewed: at the first quiet moment after a while, or before its end."""
        if self._reserve_asked:
            return None
        return self._renew_at_s if quiet else self._last_call_s
