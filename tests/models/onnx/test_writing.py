"""Writing back: only numbers change, only where an edit changed them, and never in the model that was read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.onnx import mlp_to_onnx, open_onnx, read_onnx_file

TWO_LAYERS = "h = Gemm(x, w1, b1)\nr = Relu(h)\ny = Gemm(r, w2, b2)"
TIED = "h = Gemm(x, w, b)\nr = Relu(h)\ny = Gemm(r, w, b)"


def array(model, name):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def changed(mlp, kind, layer, value):
    other = mlp.replace(mlp.theta.copy())
    other.parameter(kind, layer)[...] = value
    return other


def test_only_the_edited_tensor_changes(kit):
    model = kit.build(TWO_LAYERS, kit.layers(4, 3, 2))
    opened = open_onnx(model)
    written = opened.write(changed(opened.mlp, "weight", 1, 7))
    assert written.graph.node == model.graph.node
    for before, after in zip(model.graph.initializer, written.graph.initializer, strict=True):
        assert (before == after) == (before.name != "w2")
    assert (array(written, "w2") == 7).all()


def test_write_into(kit):
    model = kit.build(TWO_LAYERS, kit.layers(4, 3, 2))
    original = model.SerializeToString()
    opened = open_onnx(model)
    opened.write_into(changed(opened.mlp, "bias", 0, 3))
    assert (array(model, "b1") == 3).all()
    opened.write_into(opened.mlp)  # back again
    assert model.SerializeToString() == original


def test_tied_weights_stay_tied_while_equal(kit):
    model = kit.build(TIED, {k[0]: v for k, v in kit.layers(4, 4).items()})
    opened = kit.check(model, edit=False)
    assert {slot.key for slot in opened.slots} > {"w", "b"}
    assert [note for note in opened.notes if note.startswith("'w' is read in 2 places")]
    both = changed(changed(opened.mlp, "weight", 0, 2), "weight", 1, 2)
    written = opened.write(both)
    assert len(written.graph.initializer) == 2
    assert (array(written, "w") == 2).all()


@pytest.mark.parametrize("ir", [3, 8])
@pytest.mark.parametrize("edit", [{0: 2}, {1: 2}, {0: 2, 1: 3}])
def test_tied_weights_are_untied_where_they_differ(kit, edit, ir):
    model = kit.build(TIED, {k[0]: v for k, v in kit.layers(4, 4).items()}, ir=ir, listed=ir == 3)
    opened = open_onnx(model)
    mlp = opened.mlp
    for layer, value in edit.items():
        mlp = changed(mlp, "weight", layer, value)
    written = opened.write(mlp)
    assert len(written.graph.initializer) == 3
    assert open_onnx(written).mlp.content_hash() == mlp.content_hash()
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(kit.run(written, rows), mlp.forward(rows), rtol=1e-5)


def test_untying_in_place_and_again(kit):
    model = kit.build(TIED, {k[0]: v for k, v in kit.layers(4, 4).items()})
    opened = open_onnx(model)
    for value in (2, 5):
        mlp = changed(opened.mlp, "weight", 1, value)
        opened.write_into(mlp)
        assert open_onnx(model).mlp.content_hash() == mlp.content_hash()
    assert len(model.graph.initializer) == 3


def test_a_parameter_that_also_serves_something_else(kit):
    """As exporters share equal tensors: the bias of the layer is the mean of the batch norm too."""
    text = "h = Gemm(x, w1, zero)\nn = BatchNormalization(h, one, zero, zero, one)\nr = Relu(n)\ny = Gemm(r, w2, b2)"
    arrays = kit.layers(4, 3, 2) | {"zero": np.zeros(3, np.float32), "one": np.ones(3, np.float32)}
    opened = kit.check(kit.build(text, arrays))
    written = opened.write(changed(opened.mlp, "bias", 0, 1))
    assert (array(written, "zero") == 0).all()
    assert len(written.graph.initializer) == len(arrays) + 1


def test_a_fixed_value_beside_a_parameter_is_kept(kit):
    text = "f = Mul(x, b1)\nh = Gemm(f, w1, b1)\nr = Relu(h)\ny = Gemm(r, w2, b2)"
    model = kit.build(text, kit.layers(4, 4, 2))
    opened = kit.check(model)
    written = opened.write(changed(opened.mlp, "bias", 0, 9))
    assert np.array_equal(open_onnx(written).mlp.input_scale, opened.mlp.input_scale)


def test_one_number_for_all_biases_grows(kit):
    model = kit.build("y = Gemm(x, w1, c)", {"w1": kit.layers(4, 3)["w1"], "c": np.float32(0.5)})
    opened = open_onnx(model)
    assert len(opened.write(changed(opened.mlp, "weight", 0, 1)).graph.initializer) == 2
    written = opened.write(changed(opened.mlp, "bias", 0, [1, 2, 3]))
    assert len(written.graph.initializer) == 3
    assert open_onnx(written).mlp.bias(0).tolist() == [1, 2, 3]


def test_typed_fields_are_replaced(kit):
    """Tensors may keep their numbers in float_data instead of raw bytes."""
    arrays = kit.layers(4, 3)
    model = kit.build("y = Gemm(x, w1, b1)", arrays)
    fresh = onnx.helper.make_tensor("w1", 1, (4, 3), arrays["w1"].ravel().tolist())
    assert len(fresh.float_data) == 12
    model.graph.initializer[0].CopyFrom(fresh)
    opened = kit.check(model)
    written = opened.write(changed(opened.mlp, "weight", 0, 5))
    assert (array(written, "w1") == 5).all()
    assert not written.graph.initializer[0].float_data


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_keep_the_bits_of_what_did_not_change(kit, dtype):
    arrays = {k: v / 3 for k, v in kit.layers(4, 3, dtype=dtype).items()}
    opened = open_onnx(kit.build("y = Gemm(x, w1, b1)", arrays, dtype=dtype))
    theta = opened.mlp.theta.copy()
    theta[5] = 0
    found = array(opened.write(opened.mlp.replace(theta)), "w1")
    assert found.dtype == dtype
    assert found.ravel()[5] == 0
    assert np.array_equal(np.delete(found.ravel(), 5), np.delete(arrays["w1"].ravel(), 5))


def test_what_cannot_be_written(kit):
    opened = open_onnx(
        kit.build("f = Mul(x, g)\ny = MatMul(f, w1)", kit.layers(4, 3) | {"g": np.full(4, 2, np.float32)})
    )
    with pytest.raises(UnsupportedModelError, match="no parameter for the bias of layer 0"):
        opened.write(changed(opened.mlp, "bias", 0, 1))
    with pytest.raises(UnsupportedModelError, match="another architecture"):
        opened.write(open_onnx(kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 2))).mlp)
    with pytest.raises(UnsupportedModelError, match="input_scale"):
        opened.write(MLP(opened.mlp.spec, opened.mlp.theta))


def test_a_weight_behind_a_zero_scale(kit):
    text = "h = Gemm(x, w1, b1)\nn = Mul(h, s)\nr = Relu(n)\ny = Gemm(r, w2, b2)"
    opened = open_onnx(kit.build(text, kit.layers(4, 3, 2) | {"s": np.float32([1, 0, 1])}))
    with pytest.raises(UnsupportedModelError, match="w1.*exactly 0"):
        opened.write(changed(opened.mlp, "weight", 0, 1))


def test_pruned_weights_are_exactly_zero_through_a_batch_norm(kit):
    text = "h = MatMul(x, w1)\nn = BatchNormalization(h, g, g, g, g)\nr = Relu(n)\ny = Gemm(r, w2, b2)"
    opened = open_onnx(kit.build(text, kit.layers(4, 3, 2) | {"g": np.float32([1, 2, 3])}))
    mask = np.random.default_rng(0).random(opened.mlp.spec.n_weights) < 0.5
    theta = opened.mlp.theta.copy()
    theta[: mask.size][mask] = 0
    written = opened.write(opened.mlp.replace(theta))
    assert open_onnx(written).mlp.sparsity == pytest.approx(mask.mean())
    assert (array(written, "w1") == 0).sum() == mask[:12].sum()


def test_non_finite_parameters_are_read(kit):
    arrays = kit.layers(4, 3, 2)
    arrays["w1"][0, 0], arrays["b1"][0] = np.nan, np.inf
    text = "h = Gemm(x, w1, b1)\nn = BatchNormalization(h, g, g, g, g)\nr = Relu(n)"
    text += "\nm = BatchNormalization(r, g, g, g, g)\ny = Gemm(m, w2, b2)"
    model = kit.build(text, arrays | {"g": np.float32([1, 2, 3])})
    opened = open_onnx(model)
    assert not opened.mlp.is_finite
    assert opened.write(opened.mlp).SerializeToString() == model.SerializeToString()


def test_files(kit, tmp_path):
    model = kit.build(TWO_LAYERS, kit.layers(4, 30, 2))
    plain, outside = tmp_path / "plain.onnx", tmp_path / "outside.onnx"
    onnx.save(model, plain)
    onnx.save(
        onnx.ModelProto.FromString(model.SerializeToString()),
        outside,
        save_as_external_data=True,
        location="numbers.bin",
        size_threshold=0,
    )
    wanted = open_onnx(model).mlp.content_hash()
    for path in (plain, outside):
        assert open_onnx(read_onnx_file(path)).mlp.content_hash() == wanted
        with pytest.raises(UnsupportedModelError, match="at most 500 bytes"):
            read_onnx_file(path, max_bytes=500)
    assert outside.stat().st_size < 700  # the numbers count as well
    with pytest.raises(UnsupportedModelError, match="at most 700 bytes"):
        read_onnx_file(outside, max_bytes=700)
    with pytest.raises(FileNotFoundError):
        read_onnx_file(tmp_path / "none.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "", "missing.bin", "link.bin"])
def test_external_data_outside_the_folder(kit, tmp_path, location):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedModelError, match="'w1'.*beside the model"):
        read_onnx_file(folder / "m.onnx")


def test_no_onnx_file(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(UnsupportedModelError, match="expected an ONNX model"):
        read_onnx_file(path)


@settings(max_examples=40, deadline=None)
@given(mlp=st.from_type(MLP), seed=st.integers(0, 2**32 - 1))
def test_fresh_models_are_read_back_bit_for_bit(kit, mlp, seed):
    model = mlp_to_onnx(mlp)
    onnx.checker.check_model(model, full_check=True)
    opened = open_onnx(model)
    assert opened.mlp.theta.tobytes() == mlp.theta.tobytes()
    for mine, theirs in ((opened.mlp.input_scale, mlp.input_scale), (opened.mlp.input_shift, mlp.input_shift)):
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine, theirs)
    assert opened.mlp.spec.skips == mlp.spec.skips
    assert opened.mlp.spec.output == mlp.spec.output
    for mine, theirs in zip(opened.mlp.spec.layers, mlp.spec.layers, strict=True):
        if mine.norm != "none":
            assert (mine.norm, mine.eps, mine.norm_affine) == (theirs.norm, theirs.eps, theirs.norm_affine)
        if mine.activation in ("leaky_relu", "elu"):
            assert mine.alpha == theirs.alpha
        assert (mine.width, mine.activation, mine.bias) == (theirs.width, theirs.activation, theirs.bias)
    rows = np.random.default_rng(seed).normal(size=(6, mlp.spec.n_inputs)).astype(np.float32)
    np.testing.assert_allclose(kit.run(model, rows), mlp.forward(rows), atol=2e-5, rtol=1e-4)
    other = kit.edited(opened, seed)
    written = opened.write(other)
    assert np.array_equal(open_onnx(written).mlp.theta, other.theta)
    np.testing.assert_allclose(kit.run(written, rows), other.forward(rows), atol=2e-5, rtol=1e-4)


def test_fresh_model_keeps_values_that_are_no_parameters(kit):
    """A batch norm of another model leaves a shift where there is no bias to edit."""
    source = kit.build("h = MatMul(x, w1)\nc = ConstantOfShape<value = float[1] {0.5}>(n)\ny = Add(h, c)",
                       {"w1": kit.layers(4, 3)["w1"], "n": np.array([3])})  # fmt: skip
    mlp = open_onnx(source).mlp
    assert not mlp.spec.layers[0].bias
    again = open_onnx(mlp_to_onnx(mlp)).mlp
    assert again.content_hash() == mlp.content_hash()
    mlp.bias(0)[...] = [1, 2, 3]
    assert open_onnx(mlp_to_onnx(mlp)).mlp.content_hash() == mlp.content_hash()
