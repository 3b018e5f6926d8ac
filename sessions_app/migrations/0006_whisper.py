"""What the agent of a live call is told by somebody whom the caller does not hear."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0005_rights")]

    operations = [
        migrations.AddField(
            model_name="callcommand",
            name="text",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="What the agent is to be told, for one.",
                max_length=500,
            ),
        ),
        migrations.AlterField(
            model_name="callcommand",
            name="kind",
            field=models.CharField(
                choices=[
                    ("hang_up", "hang up"),
                    ("whisper", "whisper to the agent"),
                    ("carrier_ended", "the carrier reported the end elsewhere"),
                ],
                max_length=20,
            ),
        ),
    ]
