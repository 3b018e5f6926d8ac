"""The calls: their list, the page of one, and hanging up."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format

from sessions_app import rights
from sessions_app.admin import call_page, call_the_agent
from sessions_app.admin.call_filters import LiveFilter
from sessions_app.admin.whisper import WhisperForm
from sessions_app.admin.words import clock, shown_caller, state_badge
from sessions_app.live.commands import ask
from sessions_app.models import CallRecord, CommandKind

_TEMPLATES = "admin/sessions_app/callrecord"
_UNKNOWN = "There is no such call, or it is somebody else's."


@admin.register(CallRecord)
class CallRecordAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Calls are written by the processes that serve them; people read, and may hang up."""

    list_display = (
        "shown_state",
        "started",
        "shown_duration",
        "shown_caller",
        "called",
        "shown_agent",
        "shown_reason",
        "shown_summary",
        "user",
        "node",
    )
    list_display_links = ("shown_state", "started")
    list_filter = (
        LiveFilter,
        "state",
        ("agent", admin.RelatedOnlyFieldListFilter),
        "end_reason",
    )
    list_select_related = ("agent", "user")
    list_per_page = 50
    date_hierarchy = "ringing_at"
    search_fields = ("uuid", "caller", "called", "turns__text")
    search_help_text = "Number of the caller or called, call uuid, or words of the conversation."
    actions = ("hang_up_selected",)

    # ------------------------------------------------------------------ who may what

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return CallRecord.objects.visible_to(request.user)

    def has_view_permission(self, request: HttpRequest, obj: CallRecord | None = None) -> bool:
        theirs = obj is None or self.get_queryset(request).filter(pk=obj.pk).exists()
        return theirs and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: CallRecord | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: CallRecord | None = None) -> bool:
        return False

    def has_hang_up_permission(self, request: HttpRequest) -> bool:
        return rights.may(request.user, rights.HANG_UP)

    # ------------------------------------------------------------------ the list

    def get_search_fields(self, request: HttpRequest) -> list[str] | tuple[str, ...]:
        """Whoever sees numbers masked may find a whole one that he knows, and not guess at it."""
        if rights.may(request.user, rights.SEE_NUMBERS):
            return self.search_fields
        return ["=caller" if field == "caller" else field for field in self.search_fields]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Django lets an address ask for any field of the row, a digit at a time."""
        if lookup.split("__")[0] == "caller" and not rights.may(request.user, rights.SEE_NUMBERS):
            return False
        return super().lookup_allowed(lookup, value, request)

    def get_sortable_by(self, request: HttpRequest) -> Any:
        columns = super().get_sortable_by(request)
        if rights.may(request.user, rights.SEE_NUMBERS):
            return columns
        return [column for column in columns if column != "shown_caller"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """A phone number may be typed as people write them; rows hold digits only."""
        if re.fullmatch(r"\+?[\d\s().\-/]{5,}", search_term):
            search_term = re.sub(r"\D", "", search_term)
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="state", ordering="state")
    def shown_state(self, call: CallRecord) -> str:
        return state_badge(call.state)

    @admin.display(description="started", ordering="ringing_at")
    def started(self, call: CallRecord) -> str:
        return date_format(timezone.localtime(call.ringing_at), "j M H:i:s")

    @admin.display(description="duration")
    def shown_duration(self, call: CallRecord) -> str:
        return clock(call_page.elapsed_s(call))

    @admin.display(description="caller", ordering="caller")
    def shown_caller(self, call: CallRecord) -> str:
        return shown_caller(call.caller)

    @admin.display(description="agent", ordering="agent_name")
    def shown_agent(self, call: CallRecord) -> str:
        return call.agent_name or (call.agent.name if call.agent else "–")

    @admin.display(description="end reason", ordering="end_reason")
    def shown_reason(self, call: CallRecord) -> str:
        return call.get_end_reason_display() if call.end_reason else "–"

    @admin.display(description="summary", ordering="summary_state")
    def shown_summary(self, call: CallRecord) -> str:
        return call.get_summary_state_display()

    @admin.action(description="Hang up selected live calls", permissions=["hang_up"])
    def hang_up_selected(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        live = [call for call in queryset if call.is_live]
        if not live:
            self.message_user(request, "None of the selected calls is live.", messages.WARNING)
            return None
        if request.POST.get("confirmed") != "yes":
            return self._confirmation(request, live, action="hang_up_selected")
        for call in live:
            self._ask_to_hang_up(request, call)
        return None

    # ------------------------------------------------------------------ one call

    def get_urls(self) -> list[URLPattern]:
        def named(route: str, view: Any, name: str) -> URLPattern:
            pattern: URLPattern = path(route, self.admin_site.admin_view(view), name=name)
            return pattern

        own = [
            *call_the_agent.urls(self.admin_site),
            named("of/<str:uuid>/", self.of_uuid_view, "sessions_app_callrecord_of"),
            named("<int:pk>/live/", self.live_view, "sessions_app_callrecord_live"),
            named("<int:pk>/hang-up/", self.hang_up_view, "sessions_app_callrecord_hang_up"),
            named("<int:pk>/whisper/", self.whisper_view, "sessions_app_callrecord_whisper"),
            named("<int:pk>/number/", self.number_view, "sessions_app_callrecord_number"),
        ]
        return own + super().get_urls()

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The stock page would be a form of disabled fields; a call is a story to be read."""
        call = self.get_object(request, object_id)
        if call is None:
            self.message_user(request, _UNKNOWN, messages.WARNING)
            return HttpResponseRedirect(_list_address())
        return self._page(request, self._visible(request, call), **(extra_context or {}))

    def of_uuid_view(self, request: HttpRequest, uuid: str) -> HttpResponse:
        """To the page of the call with this uuid; its row may be younger than the link."""
        call = self.get_object(request, uuid, from_field="uuid")
        if call is None:
            raise Http404(_UNKNOWN)
        return HttpResponseRedirect(_address(call))

    def live_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The parts of the page that change, from the same template."""
        call = self._found(request, pk)
        shown = self._shown(request, call)
        return render(request, f"{_TEMPLATES}/_call.html", shown)

    def number_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The page with the caller's number in full; who looked is kept in the call's history."""
        call = self._found(request, pk)
        if not rights.may(request.user, rights.SEE_NUMBERS):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseRedirect(_address(call))
        self.log_change(request, call, "Looked at the caller's number in full.")
        return self._page(request, call, full_numbers=True)

    def whisper_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Asks the call's process to tell its agent something that the caller does not hear."""
        call = self._found(request, pk)
        if not rights.may(request.user, rights.WHISPER):
            raise PermissionDenied
        if request.method == "POST":
            form = WhisperForm(request.POST)
            if not form.is_valid():
                self.message_user(request, form.told(), messages.ERROR)
            elif call_page.is_asked(call, CommandKind.WHISPER, form.cleaned_data["text"]):
                pass  # pressed twice
            elif call.is_live:
                ask(call, CommandKind.WHISPER, request.user, form.cleaned_data["text"])
                # That it was done stands under "Asked of this call", which follows by itself.
            else:
                self.message_user(request, "The call has ended; nobody was told.", messages.WARNING)
        return HttpResponseRedirect(_address(call))

    def hang_up_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """First a page that names the call, then the row that asks its process to end it."""
        call = self._found(request, pk)
        if not self.has_hang_up_permission(request):
            raise PermissionDenied
        if request.method == "POST" or not call.is_live:
            self._ask_to_hang_up(request, call)
            return HttpResponseRedirect(_address(call))
        return self._confirmation(request, [call])

    def _ask_to_hang_up(self, request: HttpRequest, call: CallRecord) -> None:
        """Asking again, or after the end, is no mistake: the caller is gone either way."""
        name = shown_caller(call.caller)
        if not call.is_live:
            self.message_user(request, f"The call of {name} has ended already.", messages.SUCCESS)
        elif call_page.is_asked(call, CommandKind.HANG_UP):
            self.message_user(
                request, f"Hanging up on {name} has been asked already.", messages.SUCCESS
            )
        else:
            ask(call, CommandKind.HANG_UP, request.user)
            self.message_user(
                request,
                f"Asked to hang up on {name}; under “Asked of this call” stands when it is done.",
                messages.SUCCESS,
            )

    def _confirmation(
        self, request: HttpRequest, calls: list[CallRecord], action: str = ""
    ) -> HttpResponse:
        lines = [
            {
                "pk": call.pk,
                "caller": shown_caller(call.caller),
                "called": call.called,
                "agent": self.shown_agent(call),
                "badge": state_badge(call.state),
                "elapsed": clock(call_page.elapsed_s(call)),
            }
            for call in calls
        ]
        return TemplateResponse(
            request,
            f"{_TEMPLATES}/hang_up.html",
            {
                **self.admin_site.each_context(request),
                "title": "Hang up?",
                "opts": self.opts,
                "calls": lines,
                "action": action,
                "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
                "back": _address(calls[0]) if not action else _list_address(),
            },
        )

    def _page(
        self, request: HttpRequest, call: CallRecord, full_numbers: bool = False, **extra: Any
    ) -> HttpResponse:
        shown = self._shown(request, call, full_numbers=full_numbers)
        return TemplateResponse(
            request,
            f"{_TEMPLATES}/change_form.html",
            {
                **self.admin_site.each_context(request),
                "title": f"Call of {shown_caller(call.caller)}",
                "opts": self.opts,
                "original": call,
                **shown,
                **extra,
            },
        )

    def _shown(
        self, request: HttpRequest, call: CallRecord, full_numbers: bool = False
    ) -> dict[str, Any]:
        return call_page.context(
            call,
            may_hang_up=self.has_hang_up_permission(request),
            may_see_number=rights.may(request.user, rights.SEE_NUMBERS),
            may_whisper=rights.may(request.user, rights.WHISPER),
            full_numbers=full_numbers,
        )

    def _visible(self, request: HttpRequest, call: CallRecord) -> CallRecord:
        if not self.has_view_permission(request, call):
            raise PermissionDenied
        return call

    def _found(self, request: HttpRequest, pk: int) -> CallRecord:
        call = self.get_object(request, str(pk))
        if call is None:
            raise Http404(_UNKNOWN)
        return self._visible(request, call)


def _address(call: CallRecord) -> str:
    return reverse("admin:sessions_app_callrecord_change", args=[call.pk])


def _list_address() -> str:
    return reverse("admin:sessions_app_callrecord_changelist")
