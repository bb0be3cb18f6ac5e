"use strict";
/* Sound without a page: decoding, a spectrogram with mel-spaced bands, its colours, and WAV files. */
const Sound = (() => {
  const RATE = 44100;  // Hz that everything is decoded to
  const N_FFT = 2048;
  const N_BANDS = 128;
  const RANGE_DB = 80;  // shown below the loudest
  const TOPS_HZ = [4000, 5512.5, 8000, 11025, 16000, 22050];
  const SLICE_MS = 12;  // of work before the page may move again
  const MAGMA = "0000040303120a0822130d341d114729115a36106b440f7651127c5d177f6a1c81762181832681902a819c2e7faa337db7" +
    "3779c43c75d0416fdc4869e75263ef5d5ef56b5cf9795dfc8961fd9869fea772feb67cfec488fed395fde2a3fcf0b2fcfdbf";

  // ---- in -----------------------------------------------------------------------------------------------------------
  /** Decodes a file's bytes to { samples: Float32Array of the mean of all channels, seconds }. */
  async function decode(bytes) {
    const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
    const samples = new Float32Array(decoded.length);
    for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
      const own = decoded.getChannelData(channel);
      for (let n = 0; n < samples.length; n++) samples[n] += own[n] / decoded.numberOfChannels;
    }
    return { samples, seconds: decoded.duration };
  }

  // ---- Fourier and mel ----------------------------------------------------------------------------------------------
  /** Makes a function that gives the powers (size / 2 + 1) of real frames: radix 2, in place, after Cooley and Tukey. */
  function makePowers(size) {
    const bits = Math.log2(size);
    const cosines = Float64Array.from({ length: size / 2 }, (_, n) => Math.cos((2 * Math.PI * n) / size));
    const sines = Float64Array.from({ length: size / 2 }, (_, n) => -Math.sin((2 * Math.PI * n) / size));
    const places = Uint32Array.from({ length: size }, (_, n) => {
      let reversed = 0;
      for (let bit = 0; bit < bits; bit++) reversed |= ((n >> bit) & 1) << (bits - 1 - bit);
      return reversed;
    });
    const real = new Float64Array(size), imaginary = new Float64Array(size);
    return (frame) => {
      for (let n = 0; n < size; n++) { real[places[n]] = frame[n]; imaginary[n] = 0; }
      for (let half = 1; half < size; half *= 2) {
        const stride = size / (2 * half);
        for (let start = 0; start < size; start += 2 * half) {
          for (let n = 0; n < half; n++) {
            const upper = start + n, lower = upper + half, turn = n * stride;
            const re = real[lower] * cosines[turn] - imaginary[lower] * sines[turn];
            const im = real[lower] * sines[turn] + imaginary[lower] * cosines[turn];
            real[lower] = real[upper] - re;
            imaginary[lower] = imaginary[upper] - im;
            real[upper] += re;
            imaginary[upper] += im;
          }
        }
      }
      return Float64Array.from({ length: size / 2 + 1 }, (_, n) => real[n] ** 2 + imaginary[n] ** 2);
    };
  }
  const toMel = (hz) => 2595 * Math.log10(1 + hz / 700);
  const toHz = (mel) => 700 * (10 ** (mel / 2595) - 1);

  /** Gives triangular bands from 0 to `top` Hz as [first bin, weights], each weighing 1 in all. */
  function makeBands(top) {
    const edges = Array.from({ length: N_BANDS + 2 }, (_, n) => (toHz((toMel(top) * n) / (N_BANDS + 1)) * N_FFT) / RATE);
    return Array.from({ length: N_BANDS }, (_, band) => {
      const [low, middle, high] = edges.slice(band, band + 3);
      const first = Math.ceil(low), weights = [];
      for (let bin = first; bin <= Math.min(high, N_FFT / 2); bin++) {
        weights.push(Math.max(0, bin <= middle ? (bin - low) / (middle - low) : (high - bin) / (high - middle)));
      }
      const sum = weights.reduce((all, one) => all + one, 0);
      // Low bands may lie between two bins; then they are the nearest one.
      return sum > 0 ? [first, weights.map((weight) => weight / sum)] : [Math.round(middle), [1]];
    });
  }

  /**
   * Gives the picture of a sound as { levels: Float32Array (bands x columns) from 0 to 1, columns, top } with the lowest
   * band first; columns of long sounds are the mean of a few frames. `isWanted` is asked now and then, and null given
   * where the answer is no.
   */
  async function spectrogram(samples, columns, isWanted = () => true) {
    const powersOf = makePowers(N_FFT);
    const window = Float64Array.from({ length: N_FFT }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / N_FFT));
    const hop = samples.length / columns;
    const nFrames = Math.min(4, Math.max(1, Math.round(hop / (N_FFT / 2))));
    const frame = new Float64Array(N_FFT), spectra = [], whole = new Float64Array(N_FFT / 2 + 1);
    let began = performance.now();
    for (let column = 0; column < columns; column++) {
      const mean = new Float64Array(N_FFT / 2 + 1);
      for (let n = 0; n < nFrames; n++) {
        const start = Math.round((column + (n + 0.5) / nFrames) * hop) - N_FFT / 2;
        for (let place = 0; place < N_FFT; place++) frame[place] = (samples[start + place] || 0) * window[place];
        powersOf(frame).forEach((power, bin) => { mean[bin] += power / nFrames; });
      }
      mean.forEach((power, bin) => { whole[bin] += power; });
      spectra.push(mean);
      if (performance.now() - began > SLICE_MS) {
        await new Promise((resolve) => setTimeout(resolve));
        if (!isWanted()) return null;
        began = performance.now();
      }
    }
    const top = topOf(whole);
    const bands = makeBands(top);
    const decibels = new Float32Array(N_BANDS * columns);
    bands.forEach(([first, weights], band) => {
      for (let column = 0; column < columns; column++) {
        let power = 1e-12;
        for (let n = 0; n < weights.length; n++) power += weights[n] * spectra[column][first + n];
        decibels[band * columns + column] = 10 * Math.log10(power);
      }
    });
    return { levels: stretched(decibels), columns, top };
  }
  /** The end of the picture: above it there is nothing, as in recordings that were made at a lower rate. */
  function topOf(whole) {
    const total = whole.reduce((all, one) => all + one, 0);
    return TOPS_HZ.find((top) => whole.subarray(Math.ceil((top * N_FFT) / RATE)).reduce((all, one) => all + one, 0) <= 1e-7 * total) || RATE / 2;
  }
  /** Stretches between the 1 % and the 99.8 % point, of at most `RANGE_DB`, to 0 to 1. */
  function stretched(decibels) {
    const sorted = Float32Array.from(decibels).sort();
    const high = sorted[Math.floor(0.998 * (sorted.length - 1))];
    const low = Math.max(sorted[Math.floor(0.01 * (sorted.length - 1))], high - RANGE_DB);
    return decibels.map((level) => Math.min(1, Math.max(0, (level - low) / Math.max(high - low, 1e-9))));
  }
  /** How high in a picture that ends at `top` Hz a frequency stands, from 0 to 1. */
  const heightOf = (hz, top) => ((toMel(hz) / toMel(top)) * (N_BANDS + 1) - 0.5) / N_BANDS;

  // ---- colours ------------------------------------------------------------------------------------------------------
  const stops = MAGMA.match(/../g).map((pair) => parseInt(pair, 16));
  /** Gives a level from 0 to 1 as [red, green, blue] of matplotlib's magma. */
  function colour(level) {
    const place = Math.min(1, Math.max(0, level)) * (stops.length / 3 - 1);
    const lower = Math.min(Math.floor(place), stops.length / 3 - 2), part = place - lower;
    return [0, 1, 2].map((n) => stops[3 * lower + n] * (1 - part) + stops[3 * lower + 3 + n] * part);
  }
  /** Paints levels (rows x columns), the first row at the bottom, a pixel each. */
  function paint(canvas, levels, columns) {
    const rows = levels.length / columns;
    canvas.width = columns;
    canvas.height = rows;
    const image = new ImageData(columns, rows);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        image.data.set([...colour(levels[row * columns + column]), 255], 4 * ((rows - 1 - row) * columns + column));
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // ---- out ----------------------------------------------------------------------------------------------------------
  /** Gives samples as a WAV file of 16 bits: every browser seeks in it, and the service decodes it. */
  function toWav(samples) {
    const bytes = new ArrayBuffer(44 + 2 * samples.length), view = new DataView(bytes);
    const write = (place, text) => [...text].forEach((letter, n) => view.setUint8(place + n, letter.charCodeAt(0)));
    write(0, "RIFF");
    view.setUint32(4, 36 + 2 * samples.length, true);
    write(8, "WAVEfmt ");
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true);  // PCM
    view.setUint16(22, 1, true);  // channels
    view.setUint32(24, RATE, true);
    view.setUint32(28, 2 * RATE, true);
    view.setUint16(32, 2, true);
    view.setUint16(34, 16, true);
    write(36, "data");
    view.setUint32(40, 2 * samples.length, true);
    const values = new Int16Array(bytes, 44);  // little-endian, as all machines with browsers are
    for (let n = 0; n < samples.length; n++) values[n] = Math.round(Math.min(1, Math.max(-1, samples[n])) * 32767);
    return new Blob([bytes], { type: "audio/wav" });
  }

  return { RATE, decode, spectrogram, makePowers, heightOf, colour, paint, toWav };
})();
