from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from esc_ensemble.errors import WorkError
from esc_ensemble.export import pipeline
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.onnx import build_graph, save_onnx
from esc_ensemble.export.parity import LARGEST_DIFFERENCE
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.export.source import read_source
from esc_ensemble.infer import METADATA_KEY
from tests.conftest import Exported, Made
from tests.export.graphs import graph_of, listen


@pytest.fixture(scope="module")
def session(exported: Exported) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exported.onnx.read_bytes(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def fused(made: Made) -> FusedBlend:
    content = read_source(made.blend)
    return FusedBlend(load_parts(content, made.blend), mixing_of(content)).eval()


def noise(n_clips: int, n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_clips).normal(0, 0.1, size=(n_clips, n_samples)).astype(np.float32)


def run(session: onnxruntime.InferenceSession, waves: np.ndarray) -> np.ndarray:
    return np.asarray(session.run(["probabilities"], {"waveform": waves})[0])


@pytest.mark.parametrize("n_clips", [1, 2, 7, 33])
@pytest.mark.parametrize("n_samples", [1, 80, 2432, 8000, 8001, 21111])
def test_any_number_of_clips_of_any_length_gives_torchs_probabilities(
    session: onnxruntime.InferenceSession, fused: FusedBlend, n_clips: int, n_samples: int
) -> None:
    waves = noise(n_clips, n_samples)
    found = run(session, waves)
    with torch.inference_mode():
        expected = fused(torch.from_numpy(waves)).numpy()
    assert found.shape == (n_clips, 10)
    np.testing.assert_allclose(found, expected, atol=LARGEST_DIFFERENCE)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


def test_silence_and_padding_give_torchs_probabilities(
    session: onnxruntime.InferenceSession, fused: FusedBlend
) -> None:
    waves = np.zeros((3, 8000), dtype=np.float32)
    waves[1, 3000:5000] = noise(1, 2000)
    waves[2, 0] = 1.0
    with torch.inference_mode():
        expected = fused(torch.from_numpy(waves)).numpy()
    np.testing.assert_allclose(run(session, waves), expected, atol=LARGEST_DIFFERENCE)


def test_a_clip_alone_gives_the_same_as_in_a_batch(session: onnxruntime.InferenceSession) -> None:
    waves = noise(16, 8000)
    alone = np.concatenate([run(session, clip[None]) for clip in waves])
    np.testing.assert_allclose(run(session, waves), alone, atol=1e-5)


def test_the_command_tells_how_near_it_came(exported: Exported) -> None:
    assert exported.result["file"] == str(exported.onnx)
    assert exported.result["n_clips"] == 20
    assert 0.0 <= exported.result["max_difference"] <= LARGEST_DIFFERENCE
    assert exported.result["same_top1"] is True


def test_nothing_but_the_files_stands_in_the_folder(exported: Exported) -> None:
    assert sorted(path.name for path in exported.onnx.parent.iterdir()) == ["both.md", "both.onnx"]


def test_the_file_is_a_valid_model_of_standard_operators(exported: Exported) -> None:
    model = onnx.load(exported.onnx)
    onnx.checker.check_model(model, full_check=True)
    assert {operator.domain for operator in model.opset_import} <= {"", "ai.onnx"}
    assert not [tensor for tensor in model.graph.initializer if tensor.external_data]
    (given,), (made,) = model.graph.input, model.graph.output
    assert (given.name, made.name) == ("waveform", "probabilities")
    assert all(size.dim_param for size in given.type.tensor_type.shape.dim)


def test_the_file_asks_for_no_newer_runtime_than_its_operators_do(exported: Exported) -> None:
    model = onnx.load(exported.onnx)
    assert [operator.version for operator in model.opset_import] == [18]
    assert model.ir_version == 8  # of ONNX 1.13, with which opset 18 came


@pytest.mark.parametrize(("opset", "lowest"), [(17, 8), (18, 8), (19, 9), (20, 9), (21, 10)])
def test_the_ir_version_is_the_lowest_that_the_opset_allows(tmp_path: Path, opset: int, lowest: int) -> None:
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y", "z")]
    nodes = [onnx.helper.make_node("Abs", ["x"], [name]) for name in ("y", "z")]
    graph = onnx.helper.make_graph(nodes, "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=11)
    save_onnx(model, {}, tmp_path / "a.onnx")
    assert onnx.load(tmp_path / "a.onnx").ir_version == lowest
    assert model.ir_version == 11


def test_all_that_a_reader_needs_is_in_the_metadata(exported: Exported, made: Made) -> None:
    properties = {item.key: item.value for item in onnx.load(exported.onnx).metadata_props}
    metadata = json.loads(properties[METADATA_KEY])
    content = read_source(made.blend)
    for key in ("name", "class_names", "combiner", "tta", "members", "scores", "dataset_fingerprint"):
        assert metadata[key] == content[key], key
    assert metadata["sample_rate"] == 8000
    assert metadata["n_samples"] == 8000
    assert metadata["fit"] == "tile"
    assert {"schema", "clip_seconds", "trim_db", "esc_ensemble", "torch"} <= set(metadata)


def test_a_file_that_disagrees_with_torch_is_not_written(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(fused: FusedBlend, *, half: bool = False) -> onnx.ModelProto:
        model = build_graph(fused, half=half)
        (weights,) = [each for each in model.graph.initializer if each.name == "part0/model.head.bias"]
        weights.CopyFrom(numpy_helper.from_array(np.linspace(0, 1, 10, dtype=np.float32), weights.name))
        return model

    monkeypatch.setattr(pipeline, "build_graph", spoiled)
    options = pipeline.ExportOptions(check_clips=2, accuracy_clips=0)
    with pytest.raises(WorkError, match=r"onnxruntime and torch disagree.*was not written"):
        pipeline.export_blend(read_source(made.blend), made.blend, tmp_path / "new.onnx", options)
    assert not list(tmp_path.iterdir())


def test_copies_of_one_trace_have_their_own_weights(made: Made) -> None:
    fused = FusedBlend(load_parts(read_source(made.blend), made.blend), mixing_of(read_source(made.blend))).eval()
    model = graph_of(fused)
    waves = noise(3, 8000)
    with torch.inference_mode():
        expected = fused.part_logits(torch.from_numpy(waves)).numpy()
    found = listen(model, "part_logits")(waves)
    assert found.shape == (4, 3, 10)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(found, axis=0).max() > 0.01  # the parts do differ


def test_norms_are_gone_and_no_constant_is_as_long_as_a_clip(exported: Exported) -> None:
    graph = onnx.load(exported.onnx).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    assert not [each.name for each in graph.initializer if 8000 in each.dims]
