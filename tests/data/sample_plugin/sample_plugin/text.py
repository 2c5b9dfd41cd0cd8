"""Routines and a policy for text."""

from dataclasses import dataclass

from routilux import Routine, routine
from routilux.activation_policies import WAIT, ActivationPolicy, Fire, immediate_policy

NUMBER = 5
print("the plugin is imported")


@dataclass
class ShoutConfig:
    mark: str = "!"


class Shout(Routine):
    """Writes words in capital letters."""

    config_type = ShoutConfig

    def __init__(self):
        super().__init__()
        self.add_slot("input")
        self.add_event("output", ["text"])
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, state):
        text = " ".join(payload["word"] for payload in slot_data["input"])
        self.emit("output", text=text.upper() + self.get_config("mark"))


@routine
def words(text):
    """Splits a text into words."""
    for word in text.split():
        yield {"word": word}


class WithParameters(Shout):
    def __init__(self, mark):
        super().__init__()


def failing_factory():
    raise OSError("no such device")


class Groups(ActivationPolicy):
    """So many items at a time, and the rest on drain."""

    __slots__ = ("size",)
    name = "groups"

    def __init__(self, size=2):
        self._init(size=size)

    def __call__(self, slots, state):
        queued = len(slots["input"])
        if queued >= self.size:
            return Fire({"input": self.size})
        return Fire({"input": queued}) if slots.flushing and queued else WAIT

    def to_dict(self):
        return {"policy": self.name, "size": self.size}


def careless(**options):
    return {}["policy"]
