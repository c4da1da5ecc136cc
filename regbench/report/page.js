"use strict";
// Of report.html: sorts and copies its tables, and draws its figures. Nothing is stored, and nothing is fetched.
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const words = content.words;

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // A page in MLflow's frame has no address of its own to go to a place in it.
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      const place = document.getElementById(link.hash.slice(1));
      event.preventDefault();
      place.tabIndex = -1; // so that the keyboard goes on from there
      place.focus({ preventScroll: true });
      place.scrollIntoView();
    });
  }

  // ---- tables

  const text = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
  const NUMBER = /^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?/;

  // What a cell is sorted by: its first number, or null where there is none.
  const number = (shown) => {
    const found = shown.match(NUMBER);
    return found ? Number(found[0].replaceAll(",", "")) : null;
  };

  const sort = (table, column, header) => {
    const falling = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => {
      const shown = text(row.cells[column]);
      return { row, shown, value: number(shown), empty: shown === "" || shown === "-" };
    });
    const numeric = rows.every(({ value, empty }) => empty || value !== null);
    rows.sort((a, b) => {
      if (a.empty || b.empty) return a.empty - b.empty; // last in both directions
      const order = numeric ? a.value - b.value : a.shown.localeCompare(b.shown, "en", { numeric: true });
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  };

  const cells = (table) => [...table.rows].map((row) => [...row.cells]);

  const csv = (table) =>
    cells(table)
      .map((row) => row.map((cell) => `"${text(cell).replaceAll('"', '""')}"`).join(","))
      .join("\n") + "\n";

  const SPECIAL = {
    "\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}", "<": "\\textless{}",
    ">": "\\textgreater{}", "|": "\\textbar{}",
  };
  const escaped = (shown) => shown.replace(/[\\^~<>|&%$#_{}]/g, (one) => SPECIAL[one] ?? `\\${one}`);

  // Marks nest, as in a name in bold.
  const latexOf = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return escaped(node.textContent);
    const inner = [...node.childNodes].map(latexOf).join("");
    const mark = { STRONG: "textbf", EM: "emph", CODE: "texttt" }[node.tagName];
    return mark ? `\\${mark}{${inner}}` : inner;
  };

  // booktabs' tabular
  const latex = (table) => {
    const [header, ...body] = cells(table);
    const columns = header.map((cell) => (cell.style.textAlign === "right" ? "r" : "l")).join("");
    const line = (row) => `${row.map((cell) => latexOf(cell).trim()).join(" & ")} \\\\`;
    return [
      `\\begin{tabular}{${columns}}`, "\\toprule", line(header), "\\midrule", ...body.map(line), "\\bottomrule",
      "\\end{tabular}", "",
    ].join("\n");
  };

  const told = document.getElementById("told");
  const tell = (message) => {
    told.textContent = message;
    setTimeout(() => (told.textContent = ""), 4000);
  };

  // The clipboard may be closed to a page in a frame or from a file: then the text is shown and selected.
  const copy = async (content) => {
    try {
      await navigator.clipboard.writeText(content);
      tell(words.copied);
    } catch {
      const area = element("textarea", { value: content, readOnly: true, ariaLabel: words.select });
      const close = element("button", { type: "button", textContent: words.close });
      const dialog = element("dialog", {}, element("p", { textContent: words.select }), area, close);
      close.addEventListener("click", () => dialog.close());
      dialog.addEventListener("close", () => dialog.remove());
      document.body.append(dialog);
      dialog.showModal();
      area.focus();
      area.select();
    }
  };

  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table");
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = element("button", { type: "button", title: words.sort }, ...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, column, header));
    });
    for (const cell of table.querySelectorAll("td")) cell.classList.toggle("long", text(cell).length > 60);
    const tools = element("div", { className: "tools" });
    for (const [label, make] of [[words.latex, latex], [words.csv, csv]]) {
      const button = element("button", { type: "button", textContent: label });
      button.addEventListener("click", () => copy(make(table)));
      tools.append(button);
    }
    box.prepend(tools);
  }

  // ---- figures

  const rows = ({ columns, levels }) => {
    const names = Object.keys(columns);
    const length = names.length ? columns[names[0]].length : 0;
    return Array.from({ length }, (_, index) => {
      const row = {};
      for (const name of names) row[name] = levels[name] ? levels[name][columns[name][index]] : columns[name][index];
      return row;
    });
  };

  // Those of the report's other figures; one less than there are colours, so that both repeat together only after ninety.
  const SHAPES = [
    "circle", "square", "diamond", "triangle-up", "triangle-down", "cross",
    "M0,-1L0.3,-0.35L1,-0.3L0.45,0.15L0.65,0.9L0,0.5L-0.65,0.9L-0.45,0.15L-1,-0.3L-0.3,-0.35Z", // a star
    "triangle-left", "triangle-right",
  ];
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const look = (width) => {
    const style = getComputedStyle(document.documentElement);
    const [ink, muted, line, faint] = ["ink", "muted", "line", "faint"].map((name) => style.getPropertyValue(`--${name}`));
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      aria: false, // the figure has a text of its own, and a table beside it its numbers
      view: { stroke: faint },
      title: { color: ink, anchor: "start", fontSize: 12, fontWeight: "normal" },
      axis: {
        labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", gridColor: faint,
        domainColor: line, tickColor: line, labelOverlap: true,
      },
      legend: {
        orient: "bottom", columns: Math.max(1, Math.floor(width / 150)), labelColor: ink, labelFontSize: 12, labelLimit: 130,
        symbolLimit: 0, symbolOpacity: 1,
      },
      range: { category: content.palettes[dark.matches ? "dark" : "light"], symbol: SHAPES },
      style: { band: { color: line, fillOpacity: 0.25 }, zero: { color: muted, strokeWidth: 1 } },
    };
  };

  const draw = async (place, chart, set) => {
    const datasets = Object.fromEntries(Object.entries(chart.tables).map(([name, table]) => [name, rows(table)]));
    const { view } = await vegaEmbed(place, { ...chart.spec, datasets }, {
      mode: "vega-lite", actions: false, renderer: chart.dense ? "canvas" : "svg", config: look(place.clientWidth),
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
    for (const [name, value] of set) view.signal(name, value);
    return view.runAsync();
  };

  // The figure that was there, as in other colours, is put away.
  const redrawn = async (place, chart, set) => {
    place.view?.finalize();
    place.view = await draw(place, chart, set);
  };

  const control = ({ parameter, label, values, texts, slider }, change) => {
    const input = slider
      ? element("input", { type: "range", min: 0, max: values.length - 1, step: 1, value: 0 })
      : element("select", {}, ...texts.map((one, index) => element("option", { value: index, textContent: one })));
    const shown = slider ? [element("output")] : [];
    const update = () => {
      const index = Number(input.value);
      if (slider) {
        shown[0].textContent = texts[index];
        input.setAttribute("aria-valuetext", texts[index]);
      }
      change(parameter, values[index]);
    };
    input.addEventListener("input", update);
    return { box: element("label", {}, label, input, ...shown), update, input };
  };

  content.charts.forEach((chart, index) => {
    const place = document.querySelector(`[data-chart="${index}"]`);
    const set = new Map();
    let drawing = Promise.resolve();
    const redraw = () => (drawing = drawing.then(() => redrawn(place, chart, set)));
    const controls = chart.controls.map((one) =>
      control(one, (parameter, value) => {
        set.set(parameter, value);
        place.view?.signal(parameter, value).runAsync();
      }),
    );
    if (controls.length) {
      place.before(element("div", { className: "controls" }, ...controls.map(({ box }) => box)));
      chart.controls.forEach((one, at) => {
        const first = (chart.spec.params ?? []).find(({ name }) => name === one.parameter);
        controls[at].input.value = Math.max(0, one.values.indexOf(first?.value));
        controls[at].update();
      });
    }
    redraw();
    dark.addEventListener("change", redraw);
  });
})();
