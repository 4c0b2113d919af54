"""Agents, their sessions, turns and steps."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name="pk_agents"),
    )
    op.create_index("ix_agents_created_at_agent_id", "agents", ["created_at", "agent_id"])
    op.create_table(
        "agent_sessions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("session_name", sa.Text(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="pk_agent_sessions"),
    )
    op.create_index(
        "ix_agent_sessions_agent_id_started_at_session_id", "agent_sessions", ["agent_id", "started_at", "session_id"]
    )
    op.create_table(
        "agent_turns",
        sa.Column("turn_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("output_message", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("generations", sa.Integer(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("completed_at", TIME),
        sa.ForeignKeyConstraint(
            ["session_id"], ["agent_sessions.session_id"], name="fk_agent_turns_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("turn_id", name="pk_agent_turns"),
    )
    op.create_index("ix_agent_turns_session_id", "agent_turns", ["session_id"])
    op.create_table(
        "agent_steps",
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("turn_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["turn_id"], ["agent_turns.turn_id"], name="fk_agent_steps_turn_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("step_id", name="pk_agent_steps"),
    )
    op.create_index("ix_agent_steps_turn_id", "agent_steps", ["turn_id"])
