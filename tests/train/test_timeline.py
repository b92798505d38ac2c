"""Every instant of the recorded steps goes to one kind of work: timelines made by hand, exact numbers."""

from __future__ import annotations

import pytest

from criadero.train.timeline import (
    ATTENTION,
    DATA,
    EXPOSED,
    OTHER,
    PRODUCTS,
    REST,
    UPDATE,
    Event,
    Mark,
    Operator,
    break_down,
    intersect,
    read_trace,
    subtract,
    union,
)

MAIN, GLOO, STREAM, COMMUNICATION_STREAM = "1/1", "1/7", "0/7", "0/20"


def step(start: float, end: float, number: int = 4) -> Event:
    return Event(f"ProfilerStep#{number}", start, end, MAIN, "mark")


def on_cpu(name: str, start: float, end: float) -> Event:
    return Event(name, start, end, MAIN)


def mark(name: str, start: float, end: float) -> Event:
    return Event(name, start, end, MAIN, "mark")


def gloo(start: float, end: float) -> Event:
    return Event("gloo:all_gather", start, end, GLOO, "mark")


def kernel(name: str, start: float, end: float, stream: str = STREAM) -> Event:
    return Event(name, start, end, stream, "kernel")


def shares(*events: Event) -> dict[str, float]:
    """Shares that are not zero, in hundredths of the steps."""
    found = break_down(events, num_steps=1)
    assert sum(found.shares.values()) == pytest.approx(1)
    return {kind: round(100 * share, 6) for kind, share in found.shares.items() if share}


def test_each_instant_of_two_whole_steps_on_cpu_goes_to_one_kind():
    found = break_down(
        [
            step(0, 10),
            step(10, 20, 5),
            mark(Mark.DATA, 0, 1),
            on_cpu("aten::linear", 2, 6),
            on_cpu("aten::addmm", 3, 5),
            on_cpu("aten::scaled_dot_product_attention", 6, 9),
            on_cpu("aten::bmm", 7, 8),
            gloo(8, 12),
            on_cpu("c10d::_allgather_base_", 12, 13),
            mark(Mark.OPTIMIZER, 14, 18),
            on_cpu("aten::_fused_adamw_", 15, 17),
            step(20, 25, 6),
            on_cpu("aten::addmm_", 21, 22),
        ],
        num_steps=2,
    )
    assert (found.steps, found.seconds) == (2, 20)
    assert found.shares == pytest.approx(
        {PRODUCTS: 0.1, ATTENTION: 0.15, OTHER: 0.1, EXPOSED: 0.15, UPDATE: 0.2, DATA: 0.05, REST: 0.25}
    )
    assert found.hidden_communication == pytest.approx(1 / 20)
    assert found.recomputed is None


def test_communication_beside_computation_is_hidden_and_the_rest_of_it_exposed():
    events = [step(0, 10), on_cpu("aten::mm", 1, 5), gloo(3, 8), gloo(6, 9)]
    assert shares(*events) == {PRODUCTS: 40, EXPOSED: 40, REST: 20}
    assert break_down(events, num_steps=1).hidden_communication == pytest.approx(0.2)


def test_an_operator_that_started_a_collective_is_not_computing_while_it_waits():
    events = [
        step(0, 10),
        on_cpu("criadero::gather_and_multiply", 0, 10),
        on_cpu("_c10d_functional::all_gather_into_tensor", 0, 1),
        on_cpu("aten::mm", 1, 4),
        on_cpu("_c10d_functional::wait_tensor", 4, 8),
        gloo(1, 8),
    ]
    assert shares(*events) == {PRODUCTS: 30, EXPOSED: 40, REST: 30}


def test_nodes_of_the_backward_pass_compute_in_the_operators_they_call_only():
    node = "autograd::engine::evaluate_function: MmBackward0"
    events = [step(0, 10), on_cpu(node, 1, 9), on_cpu("MmBackward0", 1, 8), on_cpu("aten::mm", 2, 6)]
    assert shares(*events) == {PRODUCTS: 40, REST: 60}


def test_attention_of_ones_own_is_attention_with_all_it_calls():
    events = [
        step(0, 10),
        on_cpu("BlockAttentionBackward", 1, 9),
        on_cpu("aten::mm", 2, 6),
        on_cpu("PythonDispatchMode", 6, 8),
        on_cpu("aten::exp", 6, 7),
    ]
    assert shares(*events) == {ATTENTION: 70, REST: 30}


def test_what_is_between_the_products_of_a_compiled_graph_is_other_computation():
    graph = "## Call CompiledFxGraph fo46oaj7 ##"
    events = [step(0, 10), on_cpu(graph, 1, 9), on_cpu("mkldnn::_linear_pointwise", 2, 5)]
    assert shares(*events) == {PRODUCTS: 30, OTHER: 50, REST: 20}
    assert break_down(events, num_steps=1).operators[0].name == "fused kernels of compiled layers"


def test_saving_and_scoring_are_no_part_of_the_steps():
    events = [
        step(0, 10),
        mark(Mark.PAUSE, 4, 8),
        on_cpu("aten::mm", 3, 5),
        gloo(7, 9),
        mark(Mark.DATA, 9, 10),
    ]
    found = break_down(events, num_steps=1)
    assert found.seconds == 6
    assert shares(*events) == {
        PRODUCTS: pytest.approx(100 / 6),
        EXPOSED: pytest.approx(100 / 6),
        DATA: pytest.approx(100 / 6),
        REST: 50,
    }


def test_other_threads_neither_compute_nor_wait_here():
    loader = Event("aten::mm", 0, 10, "1/9")
    assert shares(step(0, 10), loader, on_cpu("aten::mul", 0, 1)) == {OTHER: 10, REST: 90}


def test_on_cuda_kernels_count_by_their_names_and_what_launched_them_does_not():
    events = [
        step(0, 20),
        on_cpu("aten::mm", 0, 2),
        kernel("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", 2, 6),
        kernel("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128>>", 6, 8),
        kernel("sm80_xmma_fprop_cutlass_fmha", 8, 9),
        kernel("triton_poi_fused_silu_mul_3", 9, 10),
        kernel("Memcpy HtoD (Pinned -> Device)", 10, 11),
        kernel(
            "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", 5, 13, COMMUNICATION_STREAM
        ),
        Event(Mark.OPTIMIZER, 14, 18, STREAM, "device mark"),
        mark(Mark.OPTIMIZER, 9, 10),
        kernel("void multi_tensor_apply_kernel<FusedAdam>", 14, 17),
        gloo(18, 20),
    ]
    assert shares(*events) == {PRODUCTS: 20, ATTENTION: 15, OTHER: 10, EXPOSED: 10, UPDATE: 20, REST: 25}
    assert break_down(events, num_steps=1).hidden_communication == pytest.approx(6 / 20)


def test_operators_are_listed_by_time_of_their_own():
    events = [
        step(0, 10),
        on_cpu("aten::linear", 1, 6),
        on_cpu("aten::mm", 2, 5),
        on_cpu("aten::mm", 7, 8),
        on_cpu("aten::mul", 8, 8.5),
    ]
    assert break_down(events, num_steps=1, num_operators=2).operators == [
        Operator("aten::mm", 4, 2),
        Operator("aten::linear", 2, 1),
    ]


def test_a_profile_without_a_step_is_refused():
    with pytest.raises(ValueError, match="no whole step"):
        break_down([on_cpu("aten::mm", 0, 1)], num_steps=1)


def entry(name: str, start: float, end: float, *, category: str = "cpu_op", **arguments: object) -> dict:
    """What torch.profiler writes, in microseconds; here seconds come in."""
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 1,
        "tid": 1 if category != "kernel" else 7,
        "ts": start * 1e6,
        "dur": (end - start) * 1e6,
        "args": arguments,
    }


BACKWARD_WITH_RECOMPUTATION = [
    entry("ProfilerStep#1", 0, 10, category="user_annotation"),
    entry("aten::mul", 0, 1, **{"External id": 1, "Sequence number": 3, "Fwd thread id": 0}),
    entry(
        "autograd::engine::evaluate_function: MmBackward0",
        2,
        8,
        **{"External id": 2, "Sequence number": 4, "Fwd thread id": 1},
    ),
    entry("aten::silu", 3, 5, **{"External id": 3, "Sequence number": 9, "Fwd thread id": 0}),
    entry("aten::copy_", 4, 5, **{"External id": 4}),
    entry("aten::mm", 6, 7, **{"External id": 5}),
]


def test_what_the_backward_pass_computes_again_is_seen():
    found = break_down(read_trace({"traceEvents": BACKWARD_WITH_RECOMPUTATION}), num_steps=1)
    assert found.recomputed == pytest.approx(0.2)
    assert found.shares[PRODUCTS] == pytest.approx(0.1)
    assert found.shares[OTHER] == pytest.approx(0.3)


def test_on_cuda_the_kernels_launched_by_recomputation_are_seen():
    kernels = [
        entry("silu_kernel", 5, 6.5, category="kernel", **{"External id": 3}),
        entry("nvjet_hsh", 6.5, 9, category="kernel", **{"External id": 5}),
    ]
    found = break_down(read_trace({"traceEvents": BACKWARD_WITH_RECOMPUTATION + kernels}), num_steps=1)
    assert found.recomputed == pytest.approx(0.15)
    assert found.shares[PRODUCTS] == pytest.approx(0.25)


def test_unions_of_intervals():
    one = union([(3, 4), (0, 1), (1, 2), (3.5, 6), (8, 8)])
    assert one == [(0, 2), (3, 6)]
    assert intersect(one, [(1, 4), (5, 9)]) == [(1, 2), (3, 4), (5, 6)]
    assert subtract(one, [(-1, 0.5), (1, 4), (5, 9)]) == [(0.5, 1), (4, 5)]
    assert subtract(one, []) == one
    assert subtract([], one) == []
