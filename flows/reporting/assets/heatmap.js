"use strict";
/* The heat map of a block: the first layer at the bottom left, colours from 0 to 1. */

report.heatmap = (() => {
  const MOST_ITEMS = 40_000; // the charting library keeps an object each cell
  const NUMBERED_CELL = 34;
  const NARROWEST_NETWORK = 10; // where lines would hide what is between them
  const HIGHEST = 720;

  /** Return the options of a chart that shows a block. */
  function option(block, numbers, size, colours) {
    const many = block.rows.length * block.columns.length > MOST_ITEMS;
    return {
      animation: false,
      backgroundColor: "transparent",
      grid: {
        left: size.left,
        top: size.top,
        width: size.width,
        height: size.height,
        outerBoundsMode: "none",
        show: true,
        backgroundColor: colours.undefined,
        borderColor: colours.line,
      },
      xAxis: xAxis(block.columns, size, colours),
      yAxis: yAxis(block.rows, size, colours),
      visualMap: legend(size, colours, many, block.result),
      series: [many ? asPicture(block, numbers, size) : asCells(block, numbers, size)],
    };
  }

  function xAxis(side, size, colours) {
    const nameGap = size.below - 18;
    const label = { rotate: size.rotated ? 90 : 0, width: 160 };
    return axis(
      side,
      size.columns,
      size,
      colours,
      { name: `columns: ${named(side)}`, nameGap },
      label,
    );
  }

  function yAxis(side, size, colours) {
    const nameGap = size.left - 18;
    const label = { width: size.left - 34 };
    return axis(side, size.rows, size, colours, { name: `rows: ${named(side)}`, nameGap }, label);
  }

  function named(side) {
    const n = side.groups.length;
    return n === 1 ? side.groups[0].network : `${n} networks`;
  }

  function axis(side, { shown, middle, firsts }, size, colours, about, label) {
    const interval = middle ? thinned(middle, size) : thinnedEvenly(side.length, size);
    return {
      type: "category",
      data: shown,
      z: 3, // the lines between networks stand on the cells
      nameLocation: "middle",
      nameTextStyle: { color: colours.text, width: 360, overflow: "truncate" },
      ...about,
      nameTruncate: {
        maxWidth: Math.max(140, about.name.startsWith("rows") ? size.height : size.width),
      },
      axisLine: { show: false },
      axisTick: { show: false },
      splitLine: {
        show: firsts.size > 0 && (size.cell * side.length) / firsts.size >= NARROWEST_NETWORK,
        interval: (index) => firsts.has(index),
        lineStyle: { color: colours.cursor, width: 1 },
      },
      axisLabel: {
        color: colours.quiet,
        fontSize: size.font,
        margin: 5,
        overflow: "truncate",
        hideOverlap: false,
        interval,
        ...label,
      },
    };
  }

  /** Show as many of the layers' names as there is room for. */
  function thinnedEvenly(count, size) {
    const every = Math.max(1, Math.ceil((size.font + 3) / size.cell));
    return (index) => index % every === 0 && index < count;
  }

  /** The same of networks' names. */
  function thinned(middle, size) {
    const kept = new Set();
    let next = -Infinity;
    for (const at of middle) {
      if (at * size.cell < next) continue;
      kept.add(at);
      next = at * size.cell + size.font + 3;
    }
    return (index) => kept.has(index);
  }

  function legend(size, colours, many, result) {
    const [low, high] = result.limits;
    return {
      type: "continuous",
      min: low,
      max: high,
      calculable: false,
      hoverLink: false,
      precision: 2,
      orient: "horizontal",
      left: size.left,
      bottom: 4,
      itemWidth: 12,
      itemHeight: Math.max(90, Math.min(220, size.width - 60)),
      text: [String(high), `${result.measure} ${low}`],
      textStyle: { color: colours.quiet, fontSize: size.font },
      inRange: { color: report.colours.MAGMA },
      // Values beyond the limits have the colours of the ends.
      outOfRange: { color: report.colours.MAGMA },
      ...(many ? { seriesIndex: [], dimension: 0 } : { dimension: 2 }),
    };
  }

  function asCells(block, numbers, size) {
    const numbered = size.cell >= NUMBERED_CELL;
    const data = [];
    for (let i = 0; i < block.rows.length; i += 1) {
      for (let j = 0; j < block.columns.length; j += 1) {
        const value = valueAt(block, numbers, i, j);
        if (value === null) continue; // the ground shows through
        const seen = [j, i, value];
        data.push(
          numbered ? { value: seen, label: { color: report.colours.textOn(shareOf(block, value)) } } : seen,
        );
      }
    }
    const formatter = ({ value }) => value[2].toFixed(2);
    return {
      type: "heatmap",
      silent: true,
      progressive: 0,
      data,
      label: { show: numbered, formatter, fontSize: 10 },
    };
  }

  /** Draw a matrix of very many cells as one picture, a dot a cell. */
  function asPicture(block, numbers, size) {
    const picture = document.createElement("canvas");
    const scale = Math.max(1, Math.round(size.cell * window.devicePixelRatio));
    picture.width = block.columns.length * scale;
    picture.height = block.rows.length * scale;
    const context = picture.getContext("2d");
    context.imageSmoothingEnabled = false; // one cell does not run into the next
    context.drawImage(dots(block, numbers), 0, 0, picture.width, picture.height);
    const shape = { x: size.left, y: size.top, width: size.width, height: size.height };
    const renderItem = () => ({ type: "image", style: { image: picture, ...shape } });
    return { type: "custom", silent: true, renderItem, data: [[0, 0]] };
  }

  function dots(block, numbers) {
    const { length: nRows } = block.rows;
    const { length: nColumns } = block.columns;
    const canvas = document.createElement("canvas");
    canvas.width = nColumns;
    canvas.height = nRows;
    const pixels = new ImageData(nColumns, nRows);
    for (let i = 0; i < nRows; i += 1) {
      for (let j = 0; j < nColumns; j += 1) {
        const value = valueAt(block, numbers, i, j);
        if (value === null) continue;
        pixels.data.set([...report.colours.at(shareOf(block, value)), 255], 4 * ((nRows - 1 - i) * nColumns + j));
      }
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  /** Return where a value is between the limits of its measure, 0 to 1 within them. */
  function shareOf({ result }, value) {
    const [low, high] = result.limits;
    return (value - low) / (high - low);
  }

  /** Return the row and the column of the stored matrix that a cell of a block shows. */
  function placeOf({ rows, columns, turned }, i, j) {
    const [row, column] = [rows.start + i, columns.start + j];
    return turned ? [column, row] : [row, column];
  }

  /** Return a value of a block, null where it is not defined. */
  function valueAt(block, numbers, i, j) {
    const [row, column] = placeOf(block, i, j);
    return numbers.values[row][column];
  }

  /** Return the standard error of a value, null where there is none. */
  function errorAt(block, numbers, i, j) {
    const [row, column] = placeOf(block, i, j);
    return numbers.errors?.[row][column] ?? null;
  }

  /** Return why a value is not defined, empty where nothing tells. */
  function reasonAt(block, numbers, i, j) {
    const [row, column] = placeOf(block, i, j);
    return numbers.reasons.find(([r, c]) => r === row && c === column)?.[2] ?? "";
  }

  /** Draw a block into a chart, and return the sizes of what was drawn. */
  function draw(chart, host, block, numbers) {
    const highest = Math.max(240, Math.min(HIGHEST, window.innerHeight * 0.72));
    const size = report.layout.measure(block, host.clientWidth, highest);
    host.style.height = `${size.total}px`;
    chart.resize();
    chart.setOption(option(block, numbers, size, report.colours.page()), { notMerge: true });
    return size;
  }

  return { draw, option, valueAt, errorAt, reasonAt };
})();
