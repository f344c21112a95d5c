"""A classifier with hostile nodes before and after it, for the manifest of a bundle to be resealed with."""

from collections.abc import Callable

from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value
from diffood.runtime.onnx.parts import Part


def as_it_is(value: Value) -> Value:
    return value


def write_hostile(
    model: bytes, image: Callable[[Value], Value] = as_it_is, logits: Callable[[Value], Value] = as_it_is
) -> bytes:
    """A classifier that is given such an image, and gives such logits."""
    builder, part = GraphBuilder(), Part("classify", model)
    made = messages.Model.FromString(model)
    (given,) = made.graph.input
    shape = ("batch", *(dim.dim_value for dim in given.type.tensor_type.shape.dim[1:]))
    found = part(builder, {"x": image(builder.input("x", messages.FLOAT, shape))})
    found["logits"] = logits(found["logits"])
    for value in made.graph.output:
        width = value.type.tensor_type.shape.dim[1].dim_value
        builder.output(value.name, found[value.name], messages.FLOAT, ("batch", width))
    return builder.serialise(part.domains)
