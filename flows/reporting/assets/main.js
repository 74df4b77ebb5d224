"use strict";
/* Starts everything; the mark "ready" is set once all of it can be used. */

(async () => {
  report.tables.start();
  if (report.facts.results.length) await report.explorer.start();
  report.curves.start();
  report.probes.start();
  performance.mark("ready");
})();
