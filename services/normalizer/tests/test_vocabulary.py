"""The words of this service's enums: those of the adapters, of the store and of the contracts are the same."""

from __future__ import annotations

from backhaul_channels import EventKind
from backhaul_common.vocabulary import Words, pascal
from backhaul_normalizer.facts import KIND_TO_PROTO
from backhaul_normalizer.states import FULFILMENT, FULFILMENT_STATES
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb


def test_adapters_and_the_contract_know_the_same_kinds_by_the_same_words() -> None:
    words = Words(event_pb2.EventKind.DESCRIPTOR)
    assert sorted(words.words) == sorted(kind.value for kind in EventKind)
    assert {kind.value: number for kind, number in KIND_TO_PROTO.items()} == {
        word: number for number, word in words.by_number.items()
    }


def test_what_messages_count_as_has_the_contracts_words_in_its_order() -> None:
    words = Words(pb.FulfilmentState.DESCRIPTOR, pascal)
    assert words.words == FULFILMENT_STATES
    assert set(FULFILMENT.values()) - {""} <= set(words.words)


def test_states_of_dead_letters_are_the_words_that_are_stored() -> None:
    assert Words(pb.DeadLetterState.DESCRIPTOR).words == ("open", "replayed", "discarded")
