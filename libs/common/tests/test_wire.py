"""What is put together from encoded parts is what the generated code would have encoded."""

from __future__ import annotations

from backhaul_common.wire import repeated
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.sampled_from([0, 1, 100, 127, 128, 200, 16_383, 16_384, 70_000]), max_size=5))
def test_a_repeated_field_is_what_protobuf_writes(sizes: list[int]) -> None:
    callbacks = [Callback(body=b"x" * size) for size in sizes]
    encoded = repeated(CallbackBatch.CALLBACKS_FIELD_NUMBER, [one.SerializeToString() for one in callbacks])
    assert encoded == CallbackBatch(callbacks=callbacks).SerializeToString()
