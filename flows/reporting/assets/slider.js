"use strict";
/* A slider over checkpoints, which plays by itself when asked to. */

report.slider = (() => {
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const STEP_MS = 650;
  const CALM_STEP_MS = 1600;

  /** Bring a slider to life; ``change`` is called with a checkpoint and resolves once it is drawn. */
  function make(root, change) {
    const range = root.querySelector("input");
    const button = root.querySelector("button");
    const output = root.querySelector("output");
    let values = [];
    let playing = null; // what tells one play from a later one

    /** Show the checkpoints there are, and which of them is looked at. */
    function fill(options, chosen) {
      values = options;
      range.max = String(Math.max(0, options.length - 1));
      range.value = String(options.indexOf(chosen));
      range.disabled = button.disabled = options.length < 2;
      range.setAttribute("aria-valuetext", chosen);
      output.textContent = `${chosen} (${options.indexOf(chosen) + 1} of ${options.length})`;
    }

    function stop() {
      playing = null;
      button.setAttribute("aria-pressed", "false");
      button.textContent = "Play";
    }

    async function play() {
      const mine = (playing = {});
      button.setAttribute("aria-pressed", "true");
      button.textContent = "Stop";
      let next = Number(range.value) + 1;
      if (next >= values.length) next = 0;
      while (playing === mine && next < values.length) {
        await change(values[next]);
        next = Number(range.value) + 1;
        if (next < values.length) await pause();
      }
      if (playing === mine) stop();
    }

    range.addEventListener("input", () => {
      stop();
      change(values[Number(range.value)]);
    });
    button.addEventListener("click", () => (playing ? stop() : play()));
    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && playing) stop();
    });

    return { fill, stop };
  }

  function pause() {
    const wait = calm.matches ? CALM_STEP_MS : STEP_MS;
    return new Promise((resolve) => setTimeout(resolve, wait));
  }

  return { make };
})();
