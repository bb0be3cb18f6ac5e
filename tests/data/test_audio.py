from __future__ import annotations

import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esc_ensemble.data import audio
from esc_ensemble.data.audio import decode, fit_to_length, prepare, stream, trim_silence
from esc_ensemble.data.containers import read_container
from esc_ensemble.errors import DataError, TooLongError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus")
SEED = np.random.default_rng(0)
WAVES = hnp.arrays(np.float32, st.integers(1, 500), elements=st.floats(-1, 1, width=32))


def write(path: Path, samples: np.ndarray, rate: int = 16000, **options: str) -> Path:
    if path.suffix == ".opus":
        options = {"format": "OGG", "subtype": "OPUS"}
    if path.suffix == ".aif":
        options = {"format": "AIFF"}
    soundfile.write(path, samples, rate, **options)
    return path


def tone(hz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def test_decode_gives_scipys_samples_of_a_16_bit_wav(tmp_path: Path) -> None:
    samples = SEED.integers(-32768, 32768, size=5000).astype(np.int16)
    scipy.io.wavfile.write(tmp_path / "a.wav", 16000, samples)
    np.testing.assert_array_equal(decode(tmp_path / "a.wav", 16000), samples / np.float32(32768))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8", "DOUBLE"])
def test_decode_mixes_stereo_to_the_mean(tmp_path: Path, subtype: str) -> None:
    stereo = np.stack([tone(440, 16000), tone(600, 16000)], axis=1)
    found = decode(write(tmp_path / "a.wav", stereo, subtype=subtype), 16000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, stereo.mean(axis=1), atol=1 / 127)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_decode_resamples_like_scipy(tmp_path: Path, rate: int) -> None:
    samples = tone(1000, rate) + tone(2345, rate) / 3
    found = decode(write(tmp_path / "a.wav", samples, rate, subtype="FLOAT"), 16000)
    common = math.gcd(rate, 16000)
    expected = scipy.signal.resample_poly(samples, 16000 // common, rate // common)
    assert found.shape == (16000,)
    # Away from the edges, where filters differ.
    np.testing.assert_allclose(found[2000:-2000], expected[2000:14000], atol=3e-3)


def test_decode_lets_nothing_fold_back(tmp_path: Path) -> None:
    found = decode(write(tmp_path / "a.wav", tone(11000, 48000), 48000, subtype="FLOAT"), 16000)
    assert np.abs(found[2000:-2000]).max() < 1e-4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_can_be_decoded(tmp_path: Path, suffix: str) -> None:
    rate = 48000 if suffix == ".opus" else 16000
    found = decode(write(tmp_path / f"a{suffix}", tone(440, rate), rate), 16000)
    assert abs(found.size - 16000) < 2500
    spectrum = np.abs(np.fft.rfft(found))
    assert abs(np.fft.rfftfreq(found.size, 1 / 16000)[spectrum.argmax()] - 440) < 2


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.99, 0.5, 0.01])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    rate = 48000 if suffix == ".opus" else 16000
    path = write(tmp_path / f"a{suffix}", 0.1 * SEED.standard_normal(2 * rate), rate)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(DataError, match=path.name):
        decode(path, 16000)


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "empty"), (b"not audio but text\n" * 99, "decoded"), (b"RIFF", "decoded")]
)
def test_what_is_not_audio_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.wav.*{text}"):
        decode(tmp_path / "bad.wav", 16000)


def test_absent_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        decode(tmp_path / "no.wav", 16000)
    with pytest.raises(DataError, match="not a file"):
        decode(tmp_path, 16000)


@pytest.mark.parametrize(
    ("samples", "rate", "text"),
    [
        (np.array([0.1, np.nan, 0.2]), 16000, "NaN"),
        (np.array([0.1, np.inf, 0.2]), 16000, "infinite"),
        (np.zeros(0), 16000, "no samples"),
        (np.full(100, 20000.0), 16000, "full scale"),
        (np.zeros(100), 10, "sample rate of 10 Hz"),
        (np.zeros(100), 3_000_000, "sample rate of 3000000 Hz"),
        (np.zeros(2), 96000, "shorter than one sample"),
    ],
)
def test_unusable_samples_are_refused(tmp_path: Path, samples: np.ndarray, rate: int, text: str) -> None:
    path = write(tmp_path / "bad.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(DataError, match=rf"bad\.wav.*{text}"):
        decode(path, 16000)


def test_a_wav_streamed_to_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(440, 16000))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert decode(path, 16000).shape == (16000,)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 5)])
def test_bytes_in_pieces_are_what_the_file_decodes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, channels: int
) -> None:
    path = write(tmp_path / "a.flac", SEED.uniform(-1, 1, size=(2 * rate, channels)), rate)
    whole = decode(path, 16000)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 10_000)
    pieces = list(stream(io.BytesIO(path.read_bytes()), 16000, name="The upload"))
    assert len(pieces) > 2
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [(".wav", "WAV"), (".aiff", "AIFF"), (".flac", "FLAC"), (".ogg", "Ogg"), (".opus", "Ogg"), (".mp3", "MP3")],
)
def test_the_first_bytes_name_the_container(tmp_path: Path, suffix: str, name: str) -> None:
    content = write(tmp_path / f"a{suffix}", tone(440, 16000)).read_bytes()
    assert read_container(io.BytesIO(content)) == name
    tag = b"ID3\x04\0\0\0\0\x01\x02" + bytes(130)
    assert read_container(io.BytesIO(tag + tag + content)) == name
    assert read_container(io.BytesIO(b"x" * 99 + content)) == name
    for broken in (b"", content[:1], tag, b"x" * 300_000 + content):
        assert read_container(io.BytesIO(broken)) == ""


def test_what_is_too_long_is_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "a.flac", np.zeros((16000, 2)), 8000).read_bytes()
    assert sum(map(len, stream(io.BytesIO(content), 16000, max_seconds=2.0, max_samples=32000))) == 32000
    with pytest.raises(TooLongError, match=r"The upload is longer than 1\.5 s"):
        list(stream(io.BytesIO(content), 16000, name="The upload", max_seconds=1.5))
    with pytest.raises(TooLongError, match="more than 31999 samples in all its channels"):
        list(stream(io.BytesIO(content), 16000, max_samples=31999))
    with pytest.raises(TooLongError, match="longer than"):
        decode(io.BytesIO(content), 16000, max_seconds=1.5)


def test_a_header_that_hides_the_length_deceives_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(write(tmp_path / "a.flac", np.zeros(80000), 8000).read_bytes())
    content[21] &= 0xF0  # the number of samples has the last 36 of these bits; 0 says that it is not known
    content[22:26] = bytes(4)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 8000)
    with pytest.raises(TooLongError, match="longer than 3 s"):
        list(stream(io.BytesIO(content), 16000, max_seconds=3.0))


def test_trim_cuts_both_ends_to_whole_frames() -> None:
    wave = np.zeros(1000, dtype=np.float32)
    wave[315:500] = 0.5
    wave[100] = 0.5 * 10 ** (-61 / 20)
    wave[900] = 0.5 * 10 ** (-59 / 20)
    np.testing.assert_array_equal(trim_silence(wave, 1000, 60.0), wave[310:910])
    np.testing.assert_array_equal(trim_silence(wave, 1000, 0.0), wave)


@given(WAVES, st.sampled_from([100, 1000, 8000]), st.floats(0, 120))
@settings(max_examples=50, deadline=None)
def test_trim_is_never_empty_and_keeps_the_loud(wave: np.ndarray, rate: int, trim_db: float) -> None:
    trimmed = trim_silence(wave, rate, trim_db)
    assert 0 < trimmed.size <= wave.size
    assert np.abs(trimmed).max() == np.abs(wave).max()
    np.testing.assert_array_equal(trim_silence(trimmed, rate, trim_db), trimmed)


@given(WAVES, st.integers(1, 1200))
@settings(max_examples=50, deadline=None)
def test_fit_tiles_pads_and_crops(wave: np.ndarray, n_samples: int) -> None:
    tiled, padded = fit_to_length(wave, n_samples, "tile"), fit_to_length(wave, n_samples, "pad")
    assert tiled.shape == padded.shape == (n_samples,)
    if wave.size >= n_samples:
        start = (wave.size - n_samples) // 2
        np.testing.assert_array_equal(tiled, wave[start : start + n_samples])
        np.testing.assert_array_equal(padded, tiled)
    else:
        np.testing.assert_array_equal(tiled, np.resize(wave, n_samples))
        np.testing.assert_array_equal(padded[: wave.size], wave)
        assert not padded[wave.size :].any()


def test_fit_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        fit_to_length(np.zeros(0, dtype=np.float32), 5, "tile")
    with pytest.raises(ValueError, match="mode"):
        fit_to_length(np.zeros(2, dtype=np.float32), 5, "mirror")  # type: ignore[arg-type]


def test_prepare_does_all_three(tmp_path: Path) -> None:
    wave = np.concatenate([np.zeros(8000), tone(440, 8000, 0.5), np.zeros(8000)])
    found = prepare(write(tmp_path / "a.wav", wave, 8000), 16000, 32000, "tile", 60.0)
    assert found.shape == (32000,)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1.0
    rms = np.sqrt(np.square(found.reshape(-1, 1600)).mean(axis=1))
    assert (rms > 0.2).all()  # the silence is gone and the tone repeated


def test_real_clips_decode_to_their_length(esc10_dir: Path, tmp_path: Path) -> None:
    for path in sorted((esc10_dir / "audio").iterdir())[::80]:
        info = soundfile.info(path)
        assert abs(decode(path, 16000).size - info.frames * 16000 / info.samplerate) < 2
        cut = shutil.copy(path, tmp_path / path.name)
        Path(cut).write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DataError, match="truncated"):
            decode(Path(cut), 16000)
