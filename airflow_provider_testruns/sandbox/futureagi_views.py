"""What Future AGI says of a run test, an execution and a call."""

from __future__ import annotations

import csv
import io
from typing import Any

from .clock import offset, zulu
from .engine import Ending
from .futureagi_calls import (
    MADE,
    SETUP_REASON,
    AgentExecution,
    Call,
    RunTest,
    average_scores,
    percent,
    summarize,
)

_ORGANIZATION = "fa000000-0000-4000-8000-0000000000ff"
_AGENT_ID = "fa000000-0000-4000-8000-0000000000a1"
_AGENT_VERSION_ID = "fa000000-0000-4000-8000-0000000000a2"
PROMPT_VERSION_ID = "fa000000-0000-4000-8000-0000000000a4"
SIMULATOR_ID = "fa000000-0000-4000-8000-0000000000a3"
_PHONE_NUMBER = "+15550100"
#: When the named objects came to be.
_EPOCH = 1_767_225_600.0


def row_json(run: AgentExecution, now: float) -> dict[str, Any]:
    """Return an execution as the list shows it."""
    counts = run.counts(now)
    final = run.phase(now).is_final
    connected = counts["completed"] + counts["analyzing"]
    attempted = counts["total"] - counts["pending"]
    seconds = run.talked(now)
    return {
        "id": run.run_id,
        "status": run.status(now).title(),
        "scenarios": run.scenario_names,
        "start_time": offset(run.created),
        "duration": seconds,
        "calls": counts["total"],
        "calls_attempted": attempted,
        "connected_calls": connected,
        "calls_connected_percentage": percent(connected, counts["total"]),
        "success_rate": percent(counts["completed"], counts["total"]),
        "avg_response_time": 0.642 if connected else 0.0,
        "agent_definition": "Sandbox agent",
        "agent_version": "v1",
        "agent_type": run.run_test.agent_type,
        "source_type": "prompt" if run.run_test.is_prompt else "agent_definition",
        "error_reason": SETUP_REASON if run.ending is Ending.ERRORED and final else None,
        "total_chats": 0 if run.is_voice else counts["total"],
        "total_number_of_fagi_agent_turns": connected * 4,
    }


def call_detail(run: AgentExecution, call: Call, status: str, now: float, origin: str) -> dict[str, Any]:
    """Return a call with all that is known of it, with the addresses of its recordings.

    :param origin: where the sandbox's Future AGI is.
    """
    row = call_row(run, call, status, now)
    if run.is_voice and status in MADE:
        at = f"{origin}/recordings/{call.id}"
        row["audio_url"] = f"{at}/combined.wav"
        row["recordings"] = {"combined": f"{at}/combined.wav", "assistant": f"{at}/assistant.wav", "customer": None}
    return row


def columns_of(run: AgentExecution, call: Call) -> dict[str, Any]:
    """Return what the row of a call's scenario says."""
    said = {"situation": f"{call.scenario.name}, customer {call.row + 1}", "Ideal Outcome": "the request is settled"}
    return {
        name: {
            "column_name": name,
            "value": value,
            "visible": True,
            "data_type": "text",
            "dataset_id": call.scenario.id,
            "dataset_column_id": f"{call.scenario.id[:-2]}f{position}",
        }
        for position, (name, value) in enumerate(said.items())
    }


def call_row(run: AgentExecution, call: Call, status: str, now: float) -> dict[str, Any]:
    """Return a call as the detail of its execution shows it."""
    made = status in MADE
    talked = status in ("completed", "analyzing")
    scores = run.scores(call, status, now)
    outputs = {
        key: {
            "name": s["name"],
            "value": s["output"],
            "type": s["output_type"],
            "reason": s["reason"],
            "status": s["status"],
            "error": s["status"] != "Completed",
            "skipped": False,
        }
        for key, s in scores.items()
    }
    metrics = {
        key: {"id": key, "visible": True, "error_localizer": False, "template_type": "single", **o}
        for key, o in outputs.items()
    }
    ended = {
        "completed": "customer-ended-call",
        "failed": run.run_test.failure_reason,
        "cancelled": "Cancelled by user",
    }
    unmeasured = (
        "agent_talk_percentage ai_interruption_count ai_interruption_rate audio_url avg_agent_latency "
        "avg_agent_latency_ms avg_stop_time_after_interruption bot_wpm csat_score customer_call_id "
        "customer_cost_breakdown customer_cost_cents customer_latency_metrics customer_name "
        "original_call_execution_id processing_skip_reason provider rerun_type scenario_graph_id "
        "service_provider_call_id session_id snapshot_timestamp talk_ratio "
        "user_interruption_count user_interruption_rate user_wpm"
    )
    return {
        **dict.fromkeys(unmeasured.split()),
        "id": call.id,
        "test_execution_id": run.run_id,
        "status": status,
        "scenario": call.scenario.name,
        "scenario_id": call.scenario.id,
        "scenario_columns": columns_of(run, call),
        "tool_outputs": run.tool_outputs(call, status, now),
        "scenario_graph": {},
        "agent_definition_used_id": _AGENT_ID,
        "agent_definition_used_name": "Sandbox agent",
        "simulator_agent_id": SIMULATOR_ID,
        "simulator_agent_name": "Sandbox customer",
        "simulation_call_type": run.run_test.agent_type,
        "call_type": "Inbound",
        "phone_number": _PHONE_NUMBER if run.is_voice else None,
        "call_summary": f"{call.scenario.name}, row {call.row + 1}" if made else None,
        "ended_reason": ended.get(status),
        "duration": float(call.seconds) if made else None,
        "duration_seconds": call.seconds if made else None,
        "start_time": zulu(run.round_started) if made else None,
        "timestamp": zulu(run.created),
        "cost_cents": 3 if made else None,
        "avg_latency_ms": 640 + call.row if talked else None,
        "response_time_ms": 640 + call.row if talked else None,
        "response_time": round(0.64 + call.row / 1000, 3) if talked else None,
        "turn_count": 4 if talked else None,
        "total_tokens": 0 if talked else None,
        "input_tokens": 0 if talked else None,
        "output_tokens": 0 if talked else None,
        "overall_score": 9.0 if scores else None,
        "eval_metrics": metrics,
        "eval_outputs": outputs,
        "is_snapshot": False,
        "processing_skipped": False,
        "recordings": {},
        "rerun_snapshots": [],
        "transcript": segments(run, call, status),
    }


def segments(run: AgentExecution, call: Call, status: str) -> list[dict[str, Any]]:
    """Return what was said."""
    if status not in MADE:
        return []
    said = [
        ("assistant", "Sandbox support, how can I help?"),
        ("user", f"It is about: {call.scenario.name}."),
    ]
    if status != "failed":
        said += [("assistant", "That is settled now."), ("user", "Thank you, goodbye.")]
    return [
        {
            "id": f"{call.id[:-2]}{position:02x}",
            "speaker_role": role,
            "content": text,
            "start_time_ms": position * 4000,
            "end_time_ms": position * 4000 + 3500,
            "start_time_seconds": f"{position * 4.0:.3f}",
            "end_time_seconds": f"{position * 4.0 + 3.5:.3f}",
            "confidence_score": 0.98,
            "created_at": zulu(run.created + position),
        }
        for position, (role, text) in enumerate(said)
    ]


def call_transcript(run: AgentExecution, call: Call, status: str) -> dict[str, Any]:
    """Return what was said in a call."""
    said = segments(run, call, status)
    return {
        "call_execution_id": call.id,
        "phone_number": _PHONE_NUMBER if run.is_voice else None,
        "status": status,
        "total_transcripts": len(said),
        "transcripts": said,
    }


def head_json(run: AgentExecution, counts: dict[str, int], now: float) -> dict[str, Any]:
    """Return what metrics and runs say first. The counters of chats stay 0."""
    finished = run.completed_at(now)
    counted = run.is_voice
    return {
        "execution_id": run.run_id,
        "status": run.status(now),
        "started_at": zulu(run.created),
        "completed_at": None if finished is None else zulu(finished),
        # Not known before all calls of a voice agent are made.
        "total_calls": 0 if run.makes_calls(now) else counts["total"],
        "completed_calls": counts["completed"] if counted else 0,
        "failed_calls": counts["failed"] if counted else 0,
    }


def metrics_json(run: AgentExecution, now: float) -> dict[str, Any]:
    """Return the metrics of an execution."""
    counts = run.counts(now)
    connected = counts["completed"] + counts["analyzing"]
    chats = "avg_total_tokens avg_input_tokens avg_output_tokens avg_chat_latency_ms avg_turn_count avg_csat_score"
    talks = (
        "avg_user_interruption_rate avg_ai_interruption_rate avg_user_wpm avg_bot_wpm avg_talk_ratio "
        "avg_stop_time_after_interruption_ms"
    )
    chat = dict.fromkeys(chats.split(), 0.0)
    if connected and not run.is_voice:
        chat.update(avg_chat_latency_ms=642.0, avg_turn_count=4.0)
    return {
        **head_json(run, counts, now),
        "metrics": {
            # What is queued, ongoing or analyzed is in none of the first three.
            "calls": {name: counts[name] for name in ("completed", "failed", "pending", "total")},
            "chat": chat,
            "conversation": dict.fromkeys(talks.split(), 0.0),
            "cost": {"total_duration_seconds": run.talked(now)},
            "latency": {
                "avg_agent_latency_ms": 0.0,
                "avg_response_time_ms": 642.0 if connected else 0.0,
                "percentiles": {},
            },
        },
    }


def runs_json(run: AgentExecution, now: float) -> dict[str, Any]:
    """Return an execution with its evaluations."""
    return {
        **head_json(run, run.counts(now), now),
        "eval_results": summarize(run.run_test, run, now),
    }


def call_head(run: AgentExecution, call: Call, status: str) -> dict[str, Any]:
    """Return what metrics and runs say of a single call."""
    made = status in MADE
    costs = ("total_cost_cents", "llm_cost_cents", "stt_cost_cents", "tts_cost_cents")
    return {
        "call_execution_id": call.id,
        "execution_id": run.run_id,
        "status": status,
        "duration_seconds": call.seconds if made else None,
        "cost": {**dict.fromkeys(costs), **({"total_cost_cents": 3} if made else {})},
        "latency": {"avg_agent_latency_ms": None, "response_time_ms": 642 if made else None},
    }


def run_test_json(run_test: RunTest, last_run: float | None) -> dict[str, Any]:
    """Return a run test.

    :param last_run: when it was run last.
    """
    evaluations: list[dict[str, Any]] = [
        {
            "id": e.id,
            "name": e.name,
            "template_id": e.template_id,
            "config": {},
            "mapping": {"input": "transcript"},
            "filters": [],
            "model": None,
            "status": "Completed",
            "error_localizer": False,
            "eval_group": None,
        }
        for e in run_test.evaluations
    ]
    source: dict[str, Any] = {
        "agent_definition": _AGENT_ID,
        "agent_definition_detail": {
            "id": _AGENT_ID,
            "agent_name": "Sandbox agent",
            "agent_type": run_test.agent_type,
            "inbound": True,
            "languages": ["en"],
        },
        "agent_version": {"id": _AGENT_VERSION_ID, "name": "v1"},
        "source_type": "agent_definition",
        "source_type_display": "Agent Definition",
        "prompt_template": None,
        "prompt_template_detail": None,
        "prompt_version": None,
        "prompt_version_detail": None,
    }
    if run_test.is_prompt:
        version = PROMPT_VERSION_ID if run_test.has_prompt_version else None
        source = {
            **dict.fromkeys(source),
            "source_type": "prompt",
            "source_type_display": "Prompt",
            "prompt_template": run_test.prompt_template,
            "prompt_template_detail": {"id": run_test.prompt_template, "name": "Sandbox prompt"},
            "prompt_version": version,
            "prompt_version_detail": version and {"id": version, "template_version": "v1"},
        }
    return {
        "id": run_test.id,
        "name": run_test.name,
        "description": f"Sandbox run test {run_test.name}",
        **source,
        "scenarios": [s.id for s in run_test.scenarios],
        "scenarios_detail": [
            {
                "id": s.id,
                "name": s.name,
                "scenario_type": "dataset",
                "dataset_rows": s.rows,
                "status": "Completed",
            }
            for s in run_test.scenarios
        ],
        "dataset_row_ids": [],
        "simulator_agent": SIMULATOR_ID,
        "simulator_agent_detail": {"id": SIMULATOR_ID, "name": "Sandbox customer"},
        "simulate_eval_configs": [e.id for e in run_test.evaluations],
        "simulate_eval_configs_detail": evaluations,
        "evals": evaluations,
        "evals_detail": evaluations,
        "organization": _ORGANIZATION,
        "enable_tool_evaluation": bool(run_test.tools),
        "created_at": zulu(_EPOCH),
        "updated_at": zulu(_EPOCH),
        "last_run_at": None if last_run is None else zulu(last_run),
        "deleted": False,
        "deleted_at": None,
    }


def csv_export(run_test: RunTest, runs: list[AgentExecution], now: float) -> bytes:
    """Return the calls of executions as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    head = [
        "ID",
        "Timestamp",
        "Call Type",
        "Status",
        "Duration",
        "Scenario",
        "Overall Score",
        "Response Time",
    ]
    names = [e.name for e in run_test.evaluations]
    writer.writerow([*head, "Audio URL", "Provider call ID", *(n for e in names for n in (e, f"{e}_reason"))])
    for run in runs:
        for call, status in run.calls_now(now):
            scores = run.scores(call, status, now)
            by_name = {s["name"]: s for s in scores.values()}
            cells = [
                str(by_name[name][part]) if name in by_name else "" for name in names for part in ("output", "reason")
            ]
            made = status in MADE
            writer.writerow(
                [
                    call.id,
                    offset(run.created),
                    "Outbound",
                    status,
                    call.seconds if made else "",
                    call.scenario.name,
                    9.0 if scores else "",
                    0.642 if status == "completed" else "",
                    "",
                    "",
                    *cells,
                ]
            )
    return buffer.getvalue().encode()


def kpis_json(run: AgentExecution, now: float) -> dict[str, Any]:
    """Return the key figures of an execution."""
    counts = run.counts(now)
    connected = counts["completed"] + counts["analyzing"]
    zeros = (
        "agent_talk_percentage customer_talk_percentage avg_agent_latency avg_ai_interruption_count "
        "avg_ai_interruption_rate avg_bot_wpm avg_csat_score avg_input_tokens avg_output_tokens "
        "avg_total_tokens avg_stop_time_after_interruption avg_talk_ratio avg_user_interruption_count "
        "avg_user_interruption_rate avg_user_wpm"
    )
    averages = average_scores(run, now)
    for evaluation in run.run_test.evaluations:
        chosen = averages.get(evaluation.name)
        if isinstance(chosen, dict):
            shown: dict[str, Any] = {choice: chosen.get(choice.lower(), 0) for choice in evaluation.choices}
            averages[evaluation.name] = {**shown, "choices": evaluation.choices}
    return {
        **dict.fromkeys(zeros.split(), 0.0),
        **averages,
        "agent_type": run.run_test.agent_type,
        "is_inbound": True,
        "total_calls": counts["total"],
        "calls_attempted": counts["total"] - counts["pending"],
        "connected_calls": connected,
        "failed_calls": counts["failed"],
        "calls_connected_percentage": percent(connected, counts["total"]),
        "total_duration": run.talked(now),
        "avg_score": 9.0 if averages else 0.0,
        "avg_response": 642.0 if connected else 0.0,
        "avg_chat_latency_ms": 642.0 if connected and not run.is_voice else 0.0,
        "avg_turn_count": 4.0 if connected else 0.0,
        "scenario_graphs": {call.scenario.id: {} for call in run.calls},
    }


def performance_json(run: AgentExecution, now: float) -> dict[str, Any]:
    """Return how the scenarios of an execution did."""
    counts = run.counts(now)
    per_scenario: dict[str, list[bool]] = {}
    for call, status in run.calls_now(now):
        per_scenario.setdefault(call.scenario.name, []).append(status == "completed")
    scores = {name: 9.0 * sum(good) / len(good) for name, good in per_scenario.items()}
    return {
        "test_run_performance_metrics": {
            "pass_rate": percent(counts["completed"], counts["total"]),
            "latest_fail_rate": percent(counts["failed"], counts["total"]),
            "total_test_runs": float(counts["total"]),
        },
        "top_performing_scenarios": [
            {
                "scenario_name": name,
                "performance_score": f"{score:.1f}",
                "test_count": str(len(per_scenario[name])),
            }
            for name, score in sorted(scores.items(), key=lambda item: -item[1])
        ],
    }


def charts_json(run: AgentExecution, now: float) -> dict[str, Any]:
    """Return the data of the charts of an execution."""
    failures: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for position, (call, status) in enumerate(run.calls_now(now), start=1):
        scored = bool(run.scores(call, status, now))
        failed = int(status == "failed")
        base = {"test_run": position, "total_calls": 1}
        failures.append({**base, "failed_calls": failed, "fail_rate": 100.0 * failed})
        scores.append({**base, "scored_calls": int(scored), "score_percentage": 90.0 * scored})

    def chart(kind: str, title: str, axis: str, data: list[dict[str, Any]]) -> dict[str, Any]:
        labels = {"x_axis_label": "Test Runs", "y_axis_label": axis}
        return {"chart_type": kind, "title": title, "data": data, **labels}

    return {
        "fail_rate_over_test_runs": chart("scatter", "Fail Rate Over Test Runs", "Fail Rate (%)", failures),
        "evaluation_categories_over_test_runs": chart(
            "line", "Evaluation Categories Over Test Runs", "Score (%)", scores
        ),
        "metadata": {
            "test_execution_id": run.run_id,
            "test_execution_name": run.target_name,
            "total_calls": len(failures),
            "total_test_runs": len(failures),
        },
    }


def call_metrics(run: AgentExecution, call: Call, status: str) -> dict[str, Any]:
    """Return the metrics of a single call."""
    chat = "total_tokens input_tokens output_tokens avg_latency_ms turn_count csat_score"
    talk = (
        "user_interruption_count user_interruption_rate ai_interruption_count ai_interruption_rate user_wpm "
        "bot_wpm talk_ratio avg_stop_time_after_interruption_ms"
    )
    return {
        **call_head(run, call, status),
        "chat_metrics": dict.fromkeys(chat.split()),
        "conversation": dict.fromkeys(talk.split()),
    }


def columns_json(run_test: RunTest) -> list[dict[str, Any]]:
    """Return the columns of the table of calls."""
    columns: list[dict[str, Any]] = [
        {"id": "call_details", "column_name": "Chat Details", "visible": True},
        {"id": "overall_score", "column_name": "Overall Score", "visible": False},
    ]
    columns += [
        {
            "id": e.id,
            "column_name": e.name,
            "visible": True,
            "type": "evaluation",
            "eval_config": {"output": e.output_type},
        }
        for e in run_test.evaluations
    ]
    return columns
