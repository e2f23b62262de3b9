"""Embedding tables that stay in 8 bits: a row is unpacked when it is looked up."""

from __future__ import annotations

import openvino
from openvino import opset13 as ops


def look_up_packed(model: openvino.Model) -> int:
    """Put the unpacking of 8-bit tables behind the look-up, in place; returns how many there were.

    As quantization leaves it, a table is integers times the scale of each row, and rows of that are looked
    up. OpenVINO then computes the whole table when it compiles: four times the bytes, in every replica, of
    what is otherwise mapped from the model's file and shared. The numbers are the same either way.
    """
    found = 0
    for lookup in model.get_ordered_ops():
        if lookup.get_type_name() != "Gather":
            continue
        table = lookup.input_value(0).get_node()
        if table.get_type_name() != "Multiply" or len(table.output(0).get_target_inputs()) > 1:
            continue
        unpacking, scales = (table.input_value(place).get_node() for place in (0, 1))
        if unpacking.get_type_name() != "Convert" or scales.get_type_name() != "Constant":
            continue
        integers = unpacking.input_value(0).get_node()
        if integers.get_type_name() != "Constant" or integers.get_element_type().bitwidth != 8:
            continue
        rows = integers.get_output_shape(0)[0]
        places, axis = lookup.input_value(1), lookup.input_value(2)
        if list(scales.get_output_shape(0)) != [rows, 1] or _value(axis.get_node()) != 0:
            continue
        taken = ops.convert(ops.gather(integers, places, axis), unpacking.get_element_type())
        lookup.output(0).replace(ops.multiply(taken, ops.gather(scales, places, axis)).output(0))
        found += 1
    return found


def _value(node: openvino.Node) -> int | None:
    """A constant's only number."""
    return int(node.data.item()) if node.get_type_name() == "Constant" and node.data.size == 1 else None
