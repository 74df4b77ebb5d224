"use strict";
/* Where a heat map is drawn: square cells in whatever width there is, and room for the names. */

report.layout = (() => {
  const LARGEST_CELL = 58;
  const FONT = 11;
  const LEGEND = 44;
  const context = document.createElement("canvas").getContext("2d");

  /** Return the names along a side, and where they stand: of layers, or of networks if several. */
  function names(side) {
    if (side.groups.length === 1) {
      return { shown: side.groups[0].taps, middle: null, firsts: new Set() };
    }
    const shown = new Array(side.length).fill("");
    const middle = new Set();
    const firsts = new Set();
    for (const group of side.groups) {
      const start = group.start - side.start;
      const at = start + Math.floor((group.taps.length - 1) / 2);
      shown[at] = group.network;
      middle.add(at);
      if (start > 0) firsts.add(start);
    }
    return { shown, middle, firsts };
  }

  function longest(texts, most) {
    context.font = `${FONT}px sans-serif`;
    const width = texts.reduce((w, text) => Math.max(w, context.measureText(text).width), 0);
    return Math.min(Math.ceil(width) + 4, most);
  }

  /** Return the sizes of a heat map of a block, all in pixels. */
  function measure(block, width, highest) {
    const rows = names(block.rows);
    const columns = names(block.columns);
    const room = Math.max(60, Math.min(190, width * 0.3));
    const left = longest(rows.shown, room) + 34;
    const right = 12;
    const top = 8;
    const cell = Math.min(
      (width - left - right) / block.columns.length,
      highest / block.rows.length,
      LARGEST_CELL,
    );
    const wide = longest(columns.shown, 160);
    const rotated = columns.middle !== null || wide > cell - 4;
    const below = (rotated ? wide : FONT + 6) + 34 + LEGEND;
    const size = { width: cell * block.columns.length, height: cell * block.rows.length };
    return {
      ...size,
      left,
      top,
      cell,
      rotated,
      rows,
      columns,
      below: below - LEGEND,
      total: top + size.height + below,
      font: FONT,
    };
  }

  return { measure };
})();
