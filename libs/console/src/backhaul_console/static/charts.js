/* Charts of a page's tables: a figure names a table's body, whose numbers it draws. What a screen reader tells, and what
   is there without this script, is the table. Colours and dashes are those of the figure's key. */
"use strict";
(() => {
  const HEIGHT = 260;
  /* Distances of marks: there are no halves of an event. */
  const WHOLE = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

  const local = () => document.getElementById("clock")?.value === "local";

  function numbers(figure) {
    const { since, until, step } = figure.dataset;
    const times = [];
    for (let at = Number(since); at < Number(until); at += Number(step)) times.push(at);
    const place = new Map(times.map((at, index) => [at, index]));
    const columns = [...figure.querySelectorAll(".key li")].map(() => times.map(() => 0));
    for (const row of document.getElementById(figure.dataset.chart).querySelectorAll("tr[data-at]")) {
      const index = place.get(Number(row.dataset.at));
      if (index === undefined) continue;
      row.querySelectorAll("td").forEach((cell, column) => { columns[column][index] = Number(cell.textContent.replace(/\D/g, "")); });
    }
    return [times, ...columns];
  }

  function draw(figure) {
    const plot = figure.querySelector(".plot"), key = figure.querySelector(".key");
    plot.hidden = key.hidden = false;
    const colours = getComputedStyle(figure), lines = [...key.querySelectorAll("li")];
    const data = numbers(figure);
    const words = lines.map((line) => line.querySelector("b"));
    const axis = { stroke: colours.color, grid: { stroke: colours.borderTopColor, width: 1 }, ticks: { stroke: colours.borderTopColor, width: 1 }, font: "12px system-ui, sans-serif" };
    const chart = new uPlot({
      width: plot.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      // Days are the API's, which are UTC.
      tzDate: (at) => (local() && figure.dataset.step < 86400 ? new Date(at * 1000) : uPlot.tzDate(new Date(at * 1000), "Etc/UTC")),
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.05)] } },
      axes: [
        { ...axis, values: [[86400, "{YYYY}-{MM}-{DD}", "", "", "", "", "", "", 1], [3600, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", "", "\n{YYYY}-{MM}-{DD}", "", "", "", 1]], space: 90 },
        { ...axis, incrs: WHOLE, size: 64, values: (_, marks) => marks.map((mark) => mark.toLocaleString("en")) },
      ],
      series: [
        {},
        ...lines.map((line) => {
          const drawn = line.querySelector("line");
          const dash = (drawn.getAttribute("stroke-dasharray") || "").split(" ").filter(Boolean).map(Number);
          return { stroke: getComputedStyle(drawn).stroke, width: 2, dash, points: { size: 5 } };
        }),
      ],
      hooks: {
        setCursor: [(self) => {
          const index = self.cursor.idx;
          words.forEach((word, column) => { word.textContent = index == null ? "" : data[column + 1][index].toLocaleString("en"); });
        }],
      },
    }, data, plot);
    return chart;
  }

  for (const figure of document.querySelectorAll("[data-chart]")) {
    if (!figure.querySelector(".key li")) continue;
    let chart = draw(figure);
    const again = () => { chart.destroy(); chart = draw(figure); };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    document.addEventListener("clock", again);
    const plot = figure.querySelector(".plot");
    new ResizeObserver(() => { if (plot.clientWidth) chart.setSize({ width: plot.clientWidth, height: HEIGHT }); }).observe(plot);
  }
})();
