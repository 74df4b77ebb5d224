"use strict";
/* The numbers of results, each fetched from a file of its own when it is first looked at.

   By a script element, as a page from the disk may read other files in no other way. */

report.numbers = (() => {
  const MOST_CELLS = 8e6;
  const waiting = new Map();
  const loaded = new Map();

  /** Take the numbers that a file hands over. */
  function receive(name, values) {
    loaded.set(name, values);
    forgetOldest();
  }

  function forgetOldest() {
    const size = (values) => values.values.length * (values.values[0]?.length ?? 0);
    let cells = [...loaded.values()].reduce((sum, values) => sum + size(values), 0);
    for (const [name, values] of loaded) {
      if (cells <= MOST_CELLS || loaded.size === 1) return;
      loaded.delete(name);
      waiting.delete(name);
      cells -= size(values);
    }
  }

  /** Return a promise of a result's numbers. */
  function load(name) {
    if (!waiting.has(name)) waiting.set(name, fetchFile(name));
    return waiting.get(name);
  }

  function fetchFile(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const fail = () => {
        waiting.delete(name);
        reject(new Error(`data/${name}.js cannot be read; write the report again`));
      };
      script.src = `data/${encodeURIComponent(name)}.js`;
      script.onload = () => {
        script.remove();
        if (loaded.has(name)) resolve(loaded.get(name));
        else fail();
      };
      script.onerror = fail;
      document.head.append(script);
    });
  }

  return { receive, load };
})();

/** What the files of numbers call. */
function reportNumbers(name, values) {
  report.numbers.receive(name, values);
}
