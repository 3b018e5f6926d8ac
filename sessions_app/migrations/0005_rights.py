"""Rights of their own for what people do with calls, and three groups that have them."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.contrib.auth.management import create_permissions
from django.db import migrations, models

GROUPS = {
    "Supervisor": [
        "view_callrecord",
        "see_all_calls",
        "see_full_numbers",
        "hang_up_calls",
        "whisper_in_calls",
        "view_agent",
        "view_phonenumber",
    ],
    "Analyst": ["view_callrecord", "see_all_calls"],
    "Agent editor": [
        "view_agent",
        "add_agent",
        "change_agent",
        "view_phonenumber",
        "add_phonenumber",
        "change_phonenumber",
    ],
}


def give(apps: Any, schema_editor: Any) -> None:
    """Permissions are made after all migrations, which is too late for those who get them here."""
    alias = schema_editor.connection.alias
    app = apps.get_app_config("sessions_app")
    app.models_module = True
    create_permissions(app, verbosity=0, using=alias, apps=apps)
    app.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    ours = permissions.filter(content_type__app_label="sessions_app")
    groups = apps.get_model("auth", "Group").objects.using(alias)
    made = []
    for name, codenames in GROUPS.items():
        group, is_new = groups.get_or_create(name=name)
        if is_new:
            made.append(group.pk)
            group.permissions.set(ours.filter(codename__in=codenames))
    # Until now, who might change a call might hang it up, and who saw it might see the number.
    users = apps.get_model(settings.AUTH_USER_MODEL).objects.using(alias)
    for had, has in (
        ("change_callrecord", "hang_up_calls"),
        ("change_callrecord", "see_full_numbers"),
        ("view_callrecord", "see_full_numbers"),
    ):
        old, new = ours.get(codename=had), ours.get(codename=has)
        for user in users.filter(user_permissions=old):
            user.user_permissions.add(new)
        for group in groups.filter(permissions=old).exclude(pk__in=made):
            group.permissions.add(new)


class Migration(migrations.Migration):
    dependencies = [
        ("sessions_app", "0004_transferred_calls"),
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="callrecord",
            options={
                "ordering": ["-ringing_at", "-id"],
                "permissions": [
                    ("see_all_calls", "Can see everybody's calls"),
                    ("see_full_numbers", "Can see callers' numbers in full"),
                    ("hang_up_calls", "Can hang up calls"),
                    ("whisper_in_calls", "Can whisper to the agent in calls"),
                ],
                "verbose_name": "call",
            },
        ),
        migrations.AlterField(
            model_name="callrecord",
            name="user",
            field=models.ForeignKey(
                blank=True,
                help_text="The number's owner, else the agent's. Nobody: who may see all calls "
                "sees it.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="calls",
                to=settings.AUTH_USER_MODEL,
                verbose_name="owner",
            ),
        ),
        # Backwards nothing: by then people may have made the groups their own.
        migrations.RunPython(give, migrations.RunPython.noop),
    ]
