"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const page = JSON.parse($("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const narrow = matchMedia("(max-width: 40rem)");
  const coarse = matchMedia("(pointer: coarse)");
  const LIGHT = {
    ink: "#1b2333", faint: "#5a6478", rule: "#c4cad6", band: "#f1f3f7", grid: "#e2e6ee", start: "#7b8496",
    lines: ["#2b4c9b", "#c05a08", "#1a7f5a", "#8a3b8f", "#6b6b00", "#1d7f95", "#b02a4c", "#555f70"],
    rate: [[0, "#dfe5f4"], [0.33, "#9fb4de"], [0.66, "#4a68b0"], [1, "#0a1c57"]],
    signed: [[0, "#a34700"], [0.499, "#f7c88c"], [0.501, "#a9bde6"], [1, "#081748"]],
  };
  const DARK = {
    ink: "#e6e9f0", faint: "#a3adc0", rule: "#465064", band: "#1b212c", grid: "#2a3240", start: "#8a94a8",
    lines: ["#8fb0ff", "#ff9c4a", "#56cfa0", "#d68ddb", "#cfcf4a", "#5ec9e0", "#ff88a5", "#b4bccb"],
    rate: [[0, "#24304d"], [0.33, "#3f5fae"], [0.66, "#82a4f5"], [1, "#eaf0ff"]],
    signed: [[0, "#ffb566"], [0.499, "#5c3d1c"], [0.501, "#2c3c66"], [1, "#b4caff"]],
  };
  const DASHES = ["solid", "solid", "dash", "dot", "dashdot", "longdash"];
  const FONT = 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  let printing = false;

  const theme = () => (dark.matches && !printing ? DARK : LIGHT);
  // Plotly reads some tags in labels; a name is only a name.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const thousands = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const percent = (x) => `${Number((100 * x).toPrecision(3))} %`;
  const range = (a, b) => (a === b ? thousands(a) : `${thousands(a)}–${thousands(b)}`);

  async function unpack(text, kind) {
    const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const width = kind.BYTES_PER_ELEMENT, n = planes.length / width, bytes = new Uint8Array(planes.length);
    for (let b = 0; b < width; b++) for (let k = 0; k < n; k++) bytes[k * width + b] = planes[b * n + k];
    return new kind(bytes.buffer);
  }

  async function unpackRun(run) {
    for (const [k, text] of run.rates.share.entries()) run.rates.share[k] = await unpack(text, Float32Array);
    run.rates.work = await unpack(run.rates.work, Float32Array);
    if (run.reward) run.reward = await unpack(run.reward, Float32Array);
    for (const layer of run.raster ? run.raster.layers : []) {
      const counts = await unpack(layer.count, Uint32Array);
      layer.first = new Uint32Array(counts.length + 1);
      for (let k = 0; k < counts.length; k++) layer.first[k + 1] = layer.first[k] + counts[k];
      layer.neuron = await unpack(layer.neuron, layer.wide ? Uint32Array : Uint16Array);
      layer.value = await unpack(layer.value, Float32Array);
    }
  }

  function episodeOf(run, step) {
    let low = 0, high = run.starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (run.starts[middle] <= step) low = middle; else high = middle;
    }
    return low;
  }

  /** Where a step lies, in words. */
  function place(run, step) {
    const episode = episodeOf(run, step);
    return `step ${thousands(step)} (episode ${episode + 1}, step ${thousands(step - run.starts[episode])})`;
  }

  /** One panel: the raster and the rates of one run, which share their view. */
  class Panel {
    constructor(run, ident) {
      this.run = run;
      this.ident = ident;
      this.raster = run.raster && $(`${ident}-raster`);
      this.rates = $(`${ident}-rates`);
      this.status = $(`${ident}-status`);
      this.x = [-0.5, run.steps - 0.5];
      this.y = run.layers.map((layer) => [layer.neurons - 0.5, -0.5]);
      this.heights = run.layers.map((layer) => Math.min(Math.max(16 + 2.05 * layer.neurons, 34), 260));
      this.wide = 1;
      if (this.raster) this.tools();
      for (const plot of [this.raster, this.rates]) if (plot) plot.replaceChildren();
    }

    tools() {
      const group = this.raster.parentElement.querySelector(".tools");
      const select = group.querySelector("select");
      select.append(new Option("all", "-1"), ...this.run.starts.map((_, k) => new Option(k + 1, k)));
      select.addEventListener("change", () => {
        const k = Number(select.value), ends = [...this.run.starts.slice(1), this.run.steps];
        if (k < 0) this.whole(); else this.look(this.run.starts[k] - 0.5, ends[k] - 0.5);
      });
      group.addEventListener("click", (event) => {
        const button = event.target.closest("button");
        if (!button) return;
        const [a, b] = this.x, width = b - a, middle = (a + b) / 2;
        const act = {
          in: () => this.look(middle - width / 4, middle + width / 4),
          out: () => this.look(middle - width, middle + width),
          left: () => this.look(a - width / 2, b - width / 2),
          right: () => this.look(a + width / 2, b + width / 2),
          all: () => this.whole(),
        }[button.dataset.do];
        act();
      });
    }

    whole() {
      this.y = this.run.layers.map((layer) => [layer.neurons - 0.5, -0.5]);
      if (this.raster) this.raster.parentElement.querySelector("select").value = "-1";
      this.look(-0.5, this.run.steps - 0.5);
    }

    /** Show the steps from a to b, kept inside the run and at least four wide. */
    look(a, b) {
      const last = this.run.steps - 0.5, width = Math.min(Math.max(b - a, 4), this.run.steps);
      const middle = (a + b) / 2;
      const from = Math.max(Math.min(middle - width / 2, last - width), -0.5);
      this.x = [from, from + width];
      this.draw();
    }

    draw() {
      if (this.raster) this.drawRaster();
      if (this.rates) this.drawRates();
    }

    /** The part of the layout that both pictures have. */
    frame(height) {
      const t = theme();
      const shapes = [];
      const seen = this.run.starts.filter((s, k) => k && s > this.x[0] && s < this.x[1]);
      for (const s of seen.length <= 150 ? seen : []) {
        shapes.push({ type: "line", xref: "x", yref: "paper", x0: s - 0.5, x1: s - 0.5, y0: 0, y1: 1,
          line: { color: t.start, width: 1, dash: "dot" } });
      }
      return {
        width: printing ? 640 : undefined, height, autosize: !printing, shapes,
        margin: { l: 46, r: 12, t: 24, b: 40 },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: FONT, size: 12, color: t.ink }, showlegend: false,
        dragmode: coarse.matches || narrow.matches ? false : "zoom",
        hoverlabel: { bgcolor: t.band, bordercolor: t.rule, font: { color: t.ink, family: FONT } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: t.faint, activecolor: t.ink },
        xaxis: { range: this.x, title: { text: "step", standoff: 6 }, zeroline: false, showgrid: false,
          linecolor: t.rule, tickcolor: t.rule, ticks: "outside", tickformat: ",d", nticks: narrow.matches ? 5 : 9 },
      };
    }

    drawRaster() {
      const run = this.run, t = theme(), apart = 24, n = run.layers.length;
      const reward = run.reward ? 52 : 0;
      const inner = this.heights.reduce((sum, h) => sum + h, 0) + apart * (n - 1) + (reward ? reward + apart : 0);
      const layout = this.frame(inner + 64);
      const across = Math.max((this.raster.clientWidth || 640) - 58, 60);
      const from = Math.max(Math.ceil(this.x[0]), 0);
      const to = Math.min(Math.floor(this.x[1]), run.raster.steps - 1);
      const views = run.layers.map((layer, k) => {
        const [a, b] = [...this.y[k]].sort((p, q) => p - q);
        return [Math.max(Math.ceil(a), 0), Math.min(Math.floor(b), layer.neurons - 1)];
      });
      const wide = Math.max(1, Math.ceil((this.x[1] - this.x[0]) / Math.max(Math.floor(across / 2), 1)));
      const talls = views.map(([a, b], k) => Math.max(1, Math.ceil((b - a + 1) / Math.floor(this.heights[k] / 2))));
      const detail = wide === 1 && talls.every((tall) => tall === 1);
      const cells = views.map((view, k) => this.bin(k, from, to, view, wide, talls[k], detail));
      let most = 0, counted = 0;
      for (const part of cells) { most = Math.max(most, part.most); counted += part.counted; }
      const bound = detail ? Math.sqrt(run.raster.limit) : Math.sqrt(most || 1);
      const traces = [];
      layout.annotations = [];
      let above = 0;
      if (reward) {
        above = reward + apart;
        this.drawReward(traces, layout, n, 1 - reward / inner);
      }
      run.layers.forEach((layer, k) => {
        const y = k ? `y${k + 1}` : "y", axis = k ? `yaxis${k + 1}` : "yaxis";
        const top = 1 - above / inner, bottom = Math.max(1 - (above + this.heights[k]) / inner, 0);
        above += this.heights[k] + apart;
        const part = cells[k];
        traces.push({
          type: "heatmap", xaxis: "x", yaxis: y, x0: from + (wide - 1) / 2, dx: wide,
          y0: views[k][0] + (talls[k] - 1) / 2, dy: talls[k], z: part.z, text: part.text, zsmooth: false,
          hoverongaps: false, hovertemplate: "%{text}<extra></extra>", showscale: false,
          zmin: detail && !run.raster.binary ? -bound : 0, zmax: bound,
          colorscale: detail && !run.raster.binary ? t.signed : t.rate,
        });
        layout[axis] = { domain: [bottom, top], range: this.y[k], anchor: "x", zeroline: false, showgrid: false,
          tickformat: "d", nticks: Math.max(2, Math.floor(this.heights[k] / 34)), tickfont: { size: 10, color: t.faint },
          tickcolor: t.rule, fixedrange: layer.neurons < 2 };
        layout.shapes.unshift({ type: "rect", xref: "paper", yref: "paper", x0: 0, x1: 1, y0: bottom, y1: top,
          fillcolor: t.band, line: { width: 0 }, layer: "below" });
        const quiet = layer.sends ? "" : ", sends no events";
        layout.annotations.push({ xref: "paper", yref: "paper", x: 0, y: top, xanchor: "left", yanchor: "bottom",
          showarrow: false, align: "left", font: { size: 12, color: t.ink },
          text: `${plain(layer.name)} (${thousands(layer.neurons)}${quiet})` });
      });
      layout.xaxis.anchor = n > 1 ? `y${n}` : "y";
      Plotly.react(this.raster, traces, layout, this.options());
      this.listen(this.raster);
      this.wide = wide;
      this.tell(from, to, counted, wide, talls, detail, most);
    }

    /** The reward of every step, on top of the layers, as axis n + 1. */
    drawReward(traces, layout, n, bottom) {
      const t = theme(), { x, points } = this.series();
      const y = points(this.run.reward);
      traces.push({ type: "scatter", mode: x.length > 1 ? "lines" : "markers", x, y, yaxis: `y${n + 1}`,
        line: { color: t.ink, width: 1.1 }, hovertemplate: "reward %{y:.4g}<extra></extra>" });
      layout[`yaxis${n + 1}`] = { domain: [bottom, 1], anchor: "x", zeroline: true, zerolinecolor: t.rule,
        showgrid: false, fixedrange: true, nticks: 3, tickfont: { size: 10, color: t.faint }, tickcolor: t.rule };
      layout.annotations.push({ xref: "paper", yref: "paper", x: 0, y: 1, xanchor: "left", yanchor: "bottom",
        showarrow: false, font: { size: 12, color: t.ink }, text: "reward per step" });
    }

    /** The middles of as many steps as a point has room for, and means over the same. */
    series() {
      const run = this.run, width = run.rates.steps;
      const from = Math.max(Math.floor(Math.max(this.x[0], 0) / width), 0);
      const to = Math.min(Math.ceil((this.x[1] + 0.5) / width), run.rates.work.length);
      const join = Math.max(1, Math.ceil((to - from) / (narrow.matches ? 160 : 320)));
      const x = [];
      for (let k = from; k < to; k += join) x.push(((k + Math.min(k + join, to)) * width) / 2 - 0.5);
      const points = (values, factor = 1) => {
        const y = [];
        for (let k = from; k < to; k += join) {
          const end = Math.min(k + join, to);
          let sum = 0;
          for (let i = k; i < end; i++) sum += values[i];
          y.push((factor * sum) / (end - k));
        }
        return y;
      };
      return { x, points };
    }

    /** Count events in cells, or, where a cell is one neuron in one step, keep the value. */
    bin(k, from, to, [low, high], wide, tall, detail) {
      const run = this.run, layer = run.raster.layers[k], name = run.layers[k].name;
      const columns = Math.max(Math.ceil((to - from + 1) / wide), 1), rows = Math.max(Math.ceil((high - low + 1) / tall), 1);
      const counts = new Uint32Array(columns * rows), values = detail ? new Float32Array(columns * rows) : null;
      let counted = 0;
      for (let step = from; step <= to; step++) {
        const column = Math.floor((step - from) / wide);
        for (let e = layer.first[step]; e < layer.first[step + 1]; e++) {
          const neuron = layer.neuron[e];
          if (neuron < low || neuron > high) continue;
          const cell = Math.floor((neuron - low) / tall) * columns + column;
          counts[cell]++;
          counted++;
          if (values) values[cell] = layer.value[e];
        }
      }
      const z = [], text = [];
      let most = 0;
      for (let r = 0; r < rows; r++) {
        const zs = new Array(columns).fill(null), texts = new Array(columns).fill("");
        const a = low + r * tall, b = Math.min(a + tall - 1, high);
        for (let c = 0; c < columns; c++) {
          const cell = r * columns + c;
          if (!counts[cell]) continue;
          const s = from + c * wide, e = Math.min(s + wide - 1, to);
          if (detail && counts[cell] === 1) {
            const v = values[cell];
            zs[c] = Math.sign(v) * Math.sqrt(Math.abs(v));
            texts[c] = `${plain(name)} neuron ${a}, ${place(run, s)}: ${v > 0 ? "+" : ""}${v.toPrecision(3)}`;
          } else {
            const share = counts[cell] / ((e - s + 1) * (b - a + 1));
            most = Math.max(most, share);
            zs[c] = Math.sqrt(share);
            texts[c] = `${plain(name)} neuron${a < b ? "s" : ""} ${range(a, b)}, steps ${range(s, e)}:<br>`
              + `${thousands(counts[cell])} event${counts[cell] > 1 ? "s" : ""}, ${percent(share)} of neuron-steps`;
          }
        }
        z.push(zs);
        text.push(texts);
      }
      return { z, text, most, counted };
    }

    /** Say in words what is seen, and what the colours mean. */
    tell(from, to, counted, wide, talls, detail, most) {
      const tallest = Math.max(...talls), t = theme(), legend = $(`${this.ident}-legend`), limit = this.run.raster.limit;
      const cell = detail ? "a cell is one neuron in one step"
        : `a cell is ${wide} step${wide > 1 ? "s" : ""} × ${tallest > 1 ? `up to ${tallest} neurons` : "1 neuron"}`;
      this.status.textContent = to < from ? "No events are kept for these steps."
        : `Steps ${range(from, to)} of ${thousands(this.run.steps)}, ${thousands(counted)} events; ${cell}.`;
      const signed = detail && !this.run.raster.binary, scale = signed ? t.signed : t.rate;
      const bar = document.createElement("i");
      bar.style.background = `linear-gradient(90deg,${scale.map(([at, colour]) => `${colour} ${100 * at}%`).join(",")})`;
      const round = (x) => Number(x.toPrecision(2));
      const ends = signed ? [`−${round(limit)}`, `+${round(limit)}`] : ["0", detail ? "1" : percent(most)];
      const what = signed ? "transmitted change (colours by its square root)" : detail ? "spike" : "neuron-steps with an event (colours by the square root)";
      const words = (s) => Object.assign(document.createElement("span"), { textContent: s });
      legend.replaceChildren(words(ends[0]), bar, words(ends[1]), words(what));
    }

    drawRates() {
      const run = this.run, t = theme(), layout = this.frame(330), { x, points } = this.series();
      const traces = [];
      run.layers.forEach((layer, k) => {
        if (!layer.sends) return;
        traces.push({ type: "scatter", mode: x.length > 1 ? "lines" : "markers", x, y: points(run.rates.share[k], 100),
          name: plain(layer.name), line: { color: t.lines[k % 8], width: 1.4, dash: DASHES[k % DASHES.length] },
          hovertemplate: `%{y:.3g} % of ${plain(layer.name)}<extra></extra>` });
      });
      traces.push({ type: "scatter", mode: "lines", x, y: points(run.rates.work, 100), yaxis: "y2", showlegend: false,
        line: { color: t.ink, width: 1.2 }, fill: "tozeroy", fillcolor: t.band,
        hovertemplate: "%{y:.3g} % of the dense MACs<extra></extra>" });
      const side = { zeroline: false, gridcolor: t.grid, rangemode: "tozero", ticksuffix: " %", nticks: 5, fixedrange: true,
        tickfont: { size: 10, color: t.faint } };
      layout.showlegend = true;
      layout.legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } };
      layout.margin.t = 44;
      layout.hovermode = "x unified";
      layout.xaxis.anchor = "y2";
      layout.yaxis = { ...side, domain: [0.42, 1] };
      layout.yaxis2 = { ...side, domain: [0, 0.3] };
      layout.annotations = [
        { xref: "paper", yref: "paper", x: 0, y: 0.3, xanchor: "left", yanchor: "bottom", showarrow: false,
          text: "synaptic operations, of the dense MACs", font: { size: 11, color: t.faint } },
      ];
      Plotly.react(this.rates, traces, layout, this.options());
      this.listen(this.rates);
    }

    options() {
      return { responsive: true, displaylogo: false, doubleClick: false, scrollZoom: false, displayModeBar: false, showTips: false };
    }

    listen(plot) {
      if (plot.dataset.ready) return;
      plot.dataset.ready = "yes";
      plot.on("plotly_relayout", (change) => {
        let moved = false;
        this.run.layers.forEach((_, k) => {
          const axis = k ? `yaxis${k + 1}` : "yaxis";
          if (plot === this.raster && `${axis}.range[0]` in change) {
            this.y[k] = [change[`${axis}.range[0]`], change[`${axis}.range[1]`]];
            moved = true;
          }
        });
        if ("xaxis.range[0]" in change) this.look(change["xaxis.range[0]"], change["xaxis.range[1]"]);
        else if (moved) this.draw();
      });
      plot.on("plotly_doubleclick", () => this.whole());
    }
  }

  function sortable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, k) => head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort"), sign = now === "descending" || (now === "none" && !k) ? 1 : -1;
      for (const other of heads) other.setAttribute("aria-sort", other === head ? (sign > 0 ? "ascending" : "descending") : "none");
      const key = (row) => row.cells[k].dataset.v;
      const rows = [...body.rows];
      const numbers = rows.every((row) => key(row) === "" || Number.isFinite(Number(key(row))));
      rows.sort((a, b) => {
        const [p, q] = [key(a), key(b)];
        // What has no value stays last in both directions.
        if (p === "" || q === "") return (p === "") - (q === "");
        return sign * (numbers ? Number(p) - Number(q) : p.localeCompare(q));
      });
      body.append(...rows);
    }));
  }

  const panels = [];
  const redraw = () => panels.forEach((panel) => panel.draw());

  function print(on) {
    if (on === printing) return;
    printing = on;
    for (const part of document.querySelectorAll("details")) {
      if (on && !part.open) { part.open = true; part.dataset.opened = "yes"; }
      else if (!on && part.dataset.opened) { part.open = false; delete part.dataset.opened; }
    }
    redraw();
  }

  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  paper.addEventListener("change", (event) => print(event.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 150); });

  (async () => {
    for (const [k, run] of page.runs.entries()) {
      await unpackRun(run);
      if (!run.steps) continue;
      const panel = new Panel(run, "ab"[k]);
      panels.push(panel);
      panel.draw();
    }
    document.body.dataset.drawn = "yes";
  })().catch((error) => {
    for (const wait of document.querySelectorAll(".wait")) {
      wait.textContent = `This picture could not be drawn (${error.message}); a browser of 2023 or newer is needed.`;
    }
    throw error;
  });
})();
