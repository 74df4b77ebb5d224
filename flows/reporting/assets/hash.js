"use strict";
/* The view in the page's address, so that it can be linked to; what it says is checked by others. */

report.hash = (() => {
  const NAMES = [
    "matrix",
    "rows",
    "columns",
    "rows-at",
    "columns-at",
    "measure",
    "kernel",
    "estimator",
    "set",
    "label",
    "pool",
    "from",
    "together",
  ];

  /** Return what the address asks for, or null where it asks for no view. */
  function read() {
    const given = new URLSearchParams(window.location.hash.slice(1));
    const known = NAMES.filter((name) => given.has(name)).map((name) => [name, given.get(name)]);
    return known.length ? Object.fromEntries(known) : null;
  }

  /** Write a view into the address, without a new step in the history. */
  function write(view) {
    const named = new URLSearchParams();
    for (const name of NAMES) if (view[name]) named.set(name, view[name]);
    window.history.replaceState(null, "", `#${named}`);
  }

  /** Call back when somebody follows a link to another view. */
  function onChange(show) {
    window.addEventListener("hashchange", () => {
      const view = read();
      if (view) show(view);
    });
  }

  return { read, write, onChange };
})();
