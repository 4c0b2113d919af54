"""An example of each operation in the published schema: they tell one session, from rows to a trained checkpoint."""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, Any] = {
    "dataset_id": "sums",
    "benchmark_id": "sums",
    "job_id": "eval-5f3a9c0d1e2b4a67",
    "job_uuid": "sums-sft",
    "agent_id": "3f0d8a52-6c1e-4b7a-9d2f-5e8c7b6a4d31",
    "session_id": "a4c1e0f7-2b9d-4e63-8f15-7d0a9b3c6e28",
    "turn_id": "c9e2b7d4-1a5f-4c38-b6e0-2f8d4a7c9b13",
    "step_id": "e7b3f1a9-8d2c-4f56-a0e4-6c9b1d5f3a72",
    "turn_ids": ["c9e2b7d4-1a5f-4c38-b6e0-2f8d4a7c9b13"],
    "start_index": 0,
    "limit": 100,
    "model_id": "tiny-llama",
    "scoring_fn_id": "basic::equality",
}
"""By the name of the parameter, in a path or in the query."""

MEANINGS = {
    "dataset_id": "A registered data set, or one of conf/dataset.",
    "benchmark_id": "A registered benchmark, or one of conf/benchmark.",
    "job_id": "What the answer of the request that began the job says.",
    "model_id": "A model of conf/model, a training job's name, or one of its checkpoints: `<job>:step-<n>`.",
    "scoring_fn_id": "One of those that are listed.",
    "agent_id": "What its creation answered.",
    "session_id": "What its creation answered.",
    "turn_id": "The `turn_id` of the turn.",
    "step_id": "The `step_id` of the step.",
}
"""By the name of the parameter in a path."""

_ROWS = [{"question": "2 + 2?", "answer": "4"}, {"question": "3 + 4?", "answer": "7"}]
_DATASET = {
    "identifier": "sums",
    "provider_id": "llsflow",
    "provider_resource_id": "sums",
    "type": "dataset",
    "purpose": "eval/question-answer",
    "source": {"type": "rows", "rows": _ROWS},
    "metadata": {"licence": "CC0-1.0"},
    "num_rows": 2,
    "digest": "0f7b9a52c4b3de61c8f5e4a37d20b6911e88a4c7f3d5b2a6908e1c7d4f3b2a59",
}
_BENCHMARK = {
    "identifier": "sums",
    "provider_id": "llsflow",
    "provider_resource_id": "sums",
    "type": "benchmark",
    "dataset_id": "sums",
    "scoring_functions": ["basic::equality"],
    "metadata": {},
}
_CONFIG = {
    "eval_candidate": {
        "type": "model",
        "model": "tiny_llama",
        "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 16},
    },
    "num_examples": 100,
}
_EVALUATED = {
    "generations": [{"generated_answer": "4"}, {"generated_answer": "8"}],
    "scores": {
        "basic::equality": {
            "score_rows": [{"score": 1.0}, {"score": 0.0}],
            "aggregated_results": {"accuracy": {"accuracy": 0.5, "num_correct": 1.0, "num_total": 2}},
        }
    },
}
_JOB = {
    "job_id": "eval-5f3a9c0d1e2b4a67",
    "status": "in_progress",
    "benchmark_id": "sums",
    "scheduled_at": "2026-11-23T08:00:00Z",
    "started_at": "2026-11-23T08:00:02Z",
    "progress": {"step": "evaluate", "step_index": 2, "steps": 3, "done": 64, "total": 100, "unit": "rows"},
}
_TRAINING: dict[str, Any] = {
    "n_epochs": 1,
    "max_steps_per_epoch": 0,
    "gradient_accumulation_steps": 1,
    "data_config": {"dataset_id": "sums-train", "batch_size": 32, "shuffle": True, "data_format": "instruct"},
    "optimizer_config": {"optimizer_type": "adamw", "lr": 3e-4, "weight_decay": 0.1, "num_warmup_steps": 20},
    "dtype": "fp32",
}
_CHECKPOINT = {
    "identifier": "sums-sft-step-100",
    "created_at": "2026-11-23T08:04:10Z",
    "epoch": 0,
    "post_training_job_id": "sums-sft",
    "path": "steps/train-9d1c/checkpoints/100",
    "training_metrics": {"epoch": 0, "train_loss": 0.21, "validation_loss": 0.24, "perplexity": 1.27},
}
_MODEL = {
    "identifier": "tiny_llama",
    "id": "tiny_llama",
    "object": "model",
    "provider_id": "conf",
    "type": "model",
    "model_type": "llm",
    "metadata": {},
}
_SCORING_FUNCTION = {
    "identifier": "basic::equality",
    "provider_id": "llsflow",
    "type": "scoring_function",
    "description": "1.0 when the generated answer is the expected answer; else 0.0.",
    "return_type": {"type": "number"},
    "params": {"type": "basic", "aggregation_functions": ["accuracy"]},
}

_AGENT_CONFIG = {
    "model": "tiny_llama",
    "instructions": "Answer with one number.",
    "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 16},
    "toolgroups": ["builtin::calculator"],
}
_AGENT = {
    "agent_id": PARAMETERS["agent_id"],
    "agent_config": _AGENT_CONFIG,
    "created_at": "2026-11-23T08:10:00Z",
}
_QUESTION = {"role": "user", "content": "2 + 2?"}
_ANSWER = {"role": "assistant", "content": "4", "stop_reason": "end_of_turn", "tool_calls": []}
_STEP = {
    "step_type": "inference",
    "turn_id": PARAMETERS["turn_id"],
    "step_id": PARAMETERS["step_id"],
    "started_at": "2026-11-23T08:10:05Z",
    "completed_at": "2026-11-23T08:10:06Z",
    "model_response": _ANSWER,
}
_TURN = {
    "turn_id": PARAMETERS["turn_id"],
    "session_id": PARAMETERS["session_id"],
    "input_messages": [_QUESTION],
    "steps": [_STEP],
    "output_message": _ANSWER,
    "output_attachments": [],
    "started_at": "2026-11-23T08:10:05Z",
    "completed_at": "2026-11-23T08:10:06Z",
}
_SESSION = {
    "session_id": PARAMETERS["session_id"],
    "session_name": "sums",
    "turns": [_TURN],
    "started_at": "2026-11-23T08:10:01Z",
}

EXAMPLES: dict[str, tuple[Any, Any]] = {
    "register_dataset": (
        {
            "dataset_id": "sums",
            "purpose": "eval/question-answer",
            "source": {"type": "rows", "rows": _ROWS},
            "metadata": {"licence": "CC0-1.0"},
        },
        _DATASET,
    ),
    "get_dataset": (None, _DATASET),
    "list_datasets": (None, {"data": [{**_DATASET, "source": {"type": "rows", "rows": []}}]}),
    "unregister_dataset": (None, None),
    "iterrows": (
        None,
        {"data": _ROWS, "has_more": True, "url": "/v1beta/datasetio/iterrows/sums?start_index=100&limit=100"},
    ),
    "append_rows": ({"rows": _ROWS}, {**_DATASET, "num_rows": 4, "source": {"type": "rows", "rows": []}}),
    "register_benchmark": (
        {"benchmark_id": "sums", "dataset_id": "sums", "scoring_functions": ["basic::equality"]},
        None,
    ),
    "get_benchmark": (None, _BENCHMARK),
    "list_benchmarks": (None, {"data": [_BENCHMARK]}),
    "unregister_benchmark": (None, None),
    "run_eval": ({"benchmark_config": _CONFIG}, {**_JOB, "status": "scheduled", "progress": None}),
    "job_status": (None, _JOB),
    "job_result": (None, _EVALUATED),
    "job_cancel": (None, None),
    "evaluate_rows": (
        {"benchmark_config": _CONFIG, "input_rows": _ROWS, "scoring_functions": ["basic::equality"]},
        _EVALUATED,
    ),
    "supervised_fine_tune": (
        {
            "job_uuid": "sums-sft",
            "training_config": _TRAINING,
            "hyperparam_search_config": {},
            "logger_config": {},
            "model": "tiny_llama",
        },
        {"job_uuid": "sums-sft", "status": "scheduled", "scheduled_at": "2026-11-23T08:00:00Z"},
    ),
    "preference_optimize": (
        {
            "job_uuid": "sums-dpo",
            "finetuned_model": "sums-sft-step-100",
            "algorithm_config": {"beta": 0.1, "loss_type": "sigmoid"},
            "training_config": {**_TRAINING, "data_config": {**_TRAINING["data_config"], "dataset_id": "preferences"}},
            "hyperparam_search_config": {},
            "logger_config": {},
        },
        {"job_uuid": "sums-dpo", "status": "scheduled", "scheduled_at": "2026-11-23T08:05:00Z"},
    ),
    "get_training_jobs": (
        None,
        {"data": [{"job_uuid": "sums-sft", "status": "completed", "scheduled_at": "2026-11-23T08:00:00Z"}]},
    ),
    "get_training_job_status": (
        None,
        {
            "job_uuid": "sums-sft",
            "status": "in_progress",
            "scheduled_at": "2026-11-23T08:00:00Z",
            "started_at": "2026-11-23T08:00:02Z",
            "checkpoints": [_CHECKPOINT],
            "progress": {
                "step": "train",
                "step_index": 3,
                "steps": 5,
                "done": 120,
                "total": 625,
                "unit": "steps",
                "tokens_per_second": 51000.0,
                "eta_seconds": 260.0,
            },
            "metrics": {"train_loss": 0.21},
            "links": {"mlflow": "http://127.0.0.1:5000/#/experiments/1/runs/0a1b"},
        },
    ),
    "get_training_job_artifacts": (None, {"job_uuid": "sums-sft", "checkpoints": [_CHECKPOINT]}),
    "cancel_training_job": ({"job_uuid": "sums-sft"}, None),
    "list_models": (None, {"object": "list", "data": [_MODEL]}),
    "get_model": (None, _MODEL),
    "list_scoring_functions": (None, {"data": [_SCORING_FUNCTION]}),
    "get_scoring_function": (None, _SCORING_FUNCTION),
    "health": (None, {"status": "OK", "parts": {"engine": {"state": "starting", "since": "2026-11-23T08:00:00Z"}}}),
    "version": (None, {"version": "0.1.0"}),
    "list_agents": (None, {"data": [_AGENT], "has_more": False}),
    "create_agent": ({"agent_config": _AGENT_CONFIG}, {"agent_id": PARAMETERS["agent_id"]}),
    "get_agent": (None, _AGENT),
    "delete_agent": (None, None),
    "create_agent_session": ({"session_name": "sums"}, {"session_id": PARAMETERS["session_id"]}),
    "list_agent_sessions": (None, {"data": [{**_SESSION, "turns": []}], "has_more": False}),
    "get_agents_session": (None, _SESSION),
    "delete_agents_session": (None, None),
    "create_agent_turn": ({"messages": [_QUESTION], "stream": False}, _TURN),
    "get_agents_turn": (None, _TURN),
    "resume_agent_turn": (
        {
            "tool_responses": [{"call_id": "call_1", "tool_name": "calculator", "content": "4"}],
            "stream": False,
        },
        _TURN,
    ),
    "get_agents_step": (None, {"step": _STEP}),
    "rerank": (
        {
            "model": "bm25",
            "query": "Which city is the capital of France?",
            "items": ["Berlin lies on the Spree.", "Paris is the capital of France."],
            "max_num_results": 1,
        },
        {"data": [{"index": 1, "relevance_score": 0.98}]},
    ),
}
"""By the name of the operation: its body (None where it has none), and its answer (None where it is empty)."""
