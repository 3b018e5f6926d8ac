"""The Django admin: what supervisors see and do.

Everything is Django's own admin with its tokens and blocks; each person sees only the agents,
numbers and calls that are theirs, superusers all.
"""

from __future__ import annotations

from django.contrib import admin

from sessions_app.admin.agents import AgentAdmin, PhoneNumberAdmin
from sessions_app.admin.calls import CallRecordAdmin
from sessions_app.admin.nodes import NodeAdmin

admin.site.site_header = "AI call centre"
admin.site.site_title = "AI call centre"
admin.site.index_title = "Call centre"
# "/" only leads here, so a link to it would go round in a circle.
admin.site.site_url = None

__all__ = ["AgentAdmin", "CallRecordAdmin", "NodeAdmin", "PhoneNumberAdmin"]
