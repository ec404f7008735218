"use strict";
// Draws the charts, makes the tables, and keeps all charts over time on one stretch of it.
(() => {
  const byId = (id) => document.getElementById(id);
  const config = JSON.parse(byId("config").textContent);
  const charts = [...document.querySelectorAll("[data-chart]")].map((host) => ({
    host,
    name: host.dataset.chart,
    ...JSON.parse(byId(`data-${host.dataset.chart}`).textContent),
    view: null,
  }));
  let stretch = null; // [from, to] in seconds, null for the whole recording

  // ------------------------------------------------------------------ charts

  const rows = (columns) => {
    const names = Object.keys(columns);
    const count = names.length ? columns[names[0]].length : 0;
    return Array.from({ length: count }, (_, i) =>
      Object.fromEntries(names.map((n) => [n, columns[n][i]])));
  };

  // "$W/3-60" is a third of the width less 60 pixels; with one column the whole width less 60.
  // "$C", "$L", "$E": columns, whether each panel has labels of its own, their pixels.
  const resolve = (value, width, columns, labels) => {
    if (Array.isArray(value)) return value.map((v) => resolve(v, width, columns, labels));
    if (value && typeof value === "object") {
      return Object.fromEntries(
        Object.entries(value).map(([k, v]) => [k, resolve(v, width, columns, labels)]));
    }
    if (value === "$C") return columns;
    if (value === "$L") return columns === 1;
    if (value === "$E") return columns === 1 ? labels : 0;
    const found = typeof value === "string" && /^\$W(?:\/(\d))?(?:-(\d+))?$/.exec(value);
    if (!found) return value;
    return Math.max(80, width / (columns > 1 ? Number(found[1] || 1) : 1) - Number(found[2] || 0));
  };

  const zoomed = (value) => {
    if (Array.isArray(value)) return value.map(zoomed);
    if (!value || typeof value !== "object") return value;
    const copy = Object.fromEntries(Object.entries(value).map(([k, v]) => [k, zoomed(v)]));
    if (copy.x && copy.x.scale && Array.isArray(copy.x.scale.domain)) {
      copy.x.scale = { ...copy.x.scale, domain: stretch };
    }
    return copy;
  };

  const draw = async (chart) => {
    const width = chart.host.clientWidth - 8;
    const columns = width < 700 ? 1 : chart.columns;
    let spec = resolve(chart.spec, width, columns, chart.labels);
    if (stretch && chart.overTime) spec = zoomed(spec);
    chart.rows ||= Object.fromEntries(
      Object.entries(chart.data).map(([name, c]) => [name, rows(c)]));
    spec.datasets = chart.rows;
    spec.description = chart.says;
    const result = await vegaEmbed(chart.host, spec, {
      renderer: "svg", actions: false, ast: true, config, defaultStyle: false,
      tooltip: { disableDefaultStyle: true, id: "vg-tooltip-element" },
    });
    if (chart.view) chart.view.finalize();
    chart.view = result.view;
    if (chart.overTime) listen(chart);
    chart.host.dataset.drawn = "yes";
  };

  const drawAll = async (which) => {
    for (const chart of which) {
      await draw(chart);
      await new Promise((done) => setTimeout(done)); // the page stays responsive in between
    }
  };

  // ------------------------------------------------------------------ one stretch of time

  const overTime = charts.filter((c) => c.overTime);

  const show = (wanted) => {
    stretch = wanted;
    byId("whole").disabled = !wanted;
    [byId("from").value, byId("to").value] = (wanted || whole).map((t) => String(+t.toFixed(3)));
    return drawAll(overTime);
  };

  const listen = (chart) => {
    let marked = null;
    chart.view.addSignalListener("brush", (_, value) => {
      const fields = Object.values(value || {});
      marked = fields.length ? fields[0] : null;
    });
    chart.host.onpointerup = () => {
      if (marked && marked[1] > marked[0]) show([marked[0], marked[1]]);
    };
    chart.host.ondblclick = () => { if (stretch) show(null); };
  };

  const domainOf = (value) => {
    if (!value || typeof value !== "object") return null;
    if (value.x && value.x.scale && Array.isArray(value.x.scale.domain)) return value.x.scale.domain;
    for (const v of Object.values(value)) {
      const found = domainOf(v);
      if (found) return found;
    }
    return null;
  };
  const whole = overTime.length ? domainOf(overTime[0].spec) : [0, 0];

  if (overTime.length) {
    byId("window").hidden = false;
    [byId("from").value, byId("to").value] = whole.map((t) => String(+t.toFixed(3)));
    byId("window").addEventListener("submit", (event) => {
      event.preventDefault();
      const [a, b] = [Number(byId("from").value), Number(byId("to").value)];
      if (b > a) show([a, b]);
    });
    byId("whole").addEventListener("click", () => show(null));
  }

  // ------------------------------------------------------------------ tables

  const fixed = (digits) => new Intl.NumberFormat("en", {
    minimumFractionDigits: digits, maximumFractionDigits: digits });
  const formats = { int: fixed(0), number: fixed(3), ms: fixed(3), percent: fixed(2),
    change: new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1,
      signDisplay: "exceptZero" }),
    chance: { format: (v) => (v < 0.001 ? "<0.001" : fixed(3).format(v)) } };
  const units = { ms: " (ms)", sec: " (s)", percent: " (%)", change: " (%)" };
  const classes = { text: "text", verdict: "text" };
  // Seconds of one column are all spelled with as many digits, as many as it needs.
  const digitsOf = (values) => {
    const needed = values.filter((v) => v !== null).map((v) => {
      const [mantissa, power] = v.toExponential(3).split("e");
      return v === 0 ? 0 : mantissa.replace(/0+$/, "").replace(/\.$/, "").length - 2 - Number(power);
    });
    return Math.min(6, Math.max(0, ...needed.map((n) => n + 0)));
  };
  const FIRST = 300; // rows to begin with

  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const makeTable = (chart, host) => {
    const { fields, data } = chart.grid;
    const count = data[fields[0].name].length;
    const order = Array.from({ length: count }, (_, i) => i);
    const format = Object.fromEntries(fields.map((f) =>
      [f.name, f.kind === "sec" ? fixed(Math.max(0, digitsOf(data[f.name]))) : formats[f.kind]]));
    let shown = Math.min(FIRST, count);
    const body = element("tbody", {});
    const more = element("button", { type: "button", className: "more" });
    const cell = (field, i) => {
      const value = data[field.name][i];
      if (value === null) return element("td", { className: "unknown", textContent: "\u2013" });
      const text = field.kind in classes ? String(value) : format[field.name].format(value);
      const tone = field.kind === "verdict" ? `text ${value}` : classes[field.kind] || "";
      return element("td", { className: tone, textContent: text });
    };
    const fill = () => {
      body.replaceChildren(...order.slice(0, shown).map((i) =>
        element("tr", {}, ...fields.map((f) => cell(f, i)))));
      more.hidden = shown >= count;
      more.textContent = `Show all ${count.toLocaleString("en")} rows`;
    };
    more.onclick = () => { shown = count; fill(); };
    const heads = fields.map((field) => {
      const button = element("button", { type: "button",
        textContent: field.label + (units[field.kind] || "") });
      const head = element("th", { scope: "col",
        className: classes[field.kind] || "" }, button);
      button.onclick = () => {
        const falling = head.getAttribute("aria-sort")
          ? head.getAttribute("aria-sort") === "ascending" : !(field.kind in classes);
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const values = data[field.name];
        const compare = field.kind in classes
          ? (a, b) => String(a).localeCompare(String(b), "en", { numeric: true })
          : (a, b) => a - b;
        order.sort((i, j) => {
          const [a, b] = [values[i], values[j]];
          if (a === null || b === null) return (a === null) - (b === null); // unknown ones last
          return (falling ? compare(b, a) : compare(a, b)) || i - j;
        });
        fill();
      };
      return head;
    });
    fill();
    host.replaceChildren(
      element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body), more);
  };

  for (const details of document.querySelectorAll("[data-grid]")) {
    const chart = charts.find((c) => c.name === details.dataset.grid);
    const fill = () => {
      const host = details.querySelector(".scroll");
      if (details.open && !host.firstChild) makeTable(chart, host);
    };
    details.addEventListener("toggle", fill);
    fill(); // some are open from the start
  }

  // ------------------------------------------------------------------ light, dark

  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const remember = (value) => { try { localStorage.setItem("pm-theme", value); } catch { /* no store */ } };
  const recall = () => { try { return localStorage.getItem("pm-theme"); } catch { return null; } };
  const setTheme = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
  };
  let theme = themes.includes(recall()) ? recall() : "auto";
  setTheme(theme);
  byId("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
    remember(theme);
  });

  // ------------------------------------------------------------------ go

  let width = innerWidth;
  let waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => drawAll(charts), 150);
  });
  // After the first paint: figures and findings are there to be read while charts are drawn.
  requestAnimationFrame(() => setTimeout(async () => {
    await drawAll(charts);
    root.dataset.ready = "yes";
  }));
})();
