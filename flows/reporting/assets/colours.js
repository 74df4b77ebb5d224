"use strict";
/* Colours: of values, of lines, and of the page as it is now, light or dark. */

report.colours = (() => {
  // Matplotlib's magma: perceptually uniform, and told apart by colour-blind readers.
  const MAGMA = [
    "#000004",
    "#030312",
    "#0a0822",
    "#130d34",
    "#1d1147",
    "#29115a",
    "#36106b",
    "#440f76",
    "#51127c",
    "#5d177f",
    "#6a1c81",
    "#762181",
    "#832681",
    "#902a81",
    "#9c2e7f",
    "#aa337d",
    "#b73779",
    "#c43c75",
    "#d0416f",
    "#dc4869",
    "#e75263",
    "#ef5d5e",
    "#f56b5c",
    "#f9795d",
    "#fc8961",
    "#fd9869",
    "#fea772",
    "#feb67c",
    "#fec488",
    "#fed395",
    "#fde2a3",
    "#fcf0b2",
    "#fcfdbf",
  ];
  // Okabe and Ito's, told apart by colour-blind readers; without yellow, which is lost on white.
  const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1"];
  const NAMES = ["page", "panel", "text", "quiet", "line", "accent", "undefined", "cursor"];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stops = MAGMA.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));

  /** Return the colour of a value as red, green and blue; beyond 0 and 1 as that of the end. */
  function at(value) {
    const place = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    const share = place - below;
    return stops[below].map((c, i) => Math.round(c + share * (stops[below + 1][i] - c)));
  }

  /** Return the colour in which a text can be read on that of a value. */
  function textOn(value) {
    const [r, g, b] = at(value);
    return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000000" : "#ffffff";
  }

  /** Return the page's colours as they are now, or those of paper inside of such an element. */
  function page(element = document.documentElement) {
    const style = getComputedStyle(element);
    return Object.fromEntries(NAMES.map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
  }

  const line = (index) => LINES[index % LINES.length];
  const onChange = (redraw) => dark.addEventListener("change", redraw);

  return { MAGMA, at, textOn, page, line, onChange };
})();
