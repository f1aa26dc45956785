(function () {
  "use strict";

  const CONFIG = {
    displaylogo: false,
    responsive: true,
    scrollZoom: false,
    // Plotly's button "Share chart" would send private texts to its makers.
    showSendToCloud: false,
    modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
  };
  const figures = parsed("figures");
  const lineage = parsed("lineage-data");
  const drawn = new Set();

  function parsed(id) {
    const element = document.getElementById(id);
    return element ? JSON.parse(element.textContent) : null;
  }

  function isVisible(element) {
    return element.offsetParent !== null;
  }

  // Figures

  async function loadPlotly() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
  }

  async function draw() {
    for (const [id, figure] of Object.entries(figures)) {
      const element = document.getElementById(id);
      // A figure in a closed tab has no size yet.
      if (!element || drawn.has(id) || !isVisible(element)) continue;
      drawn.add(id);
      const isMap = element.classList.contains("tall");
      await Plotly.newPlot(element, figure.data, figure.layout, { ...CONFIG, displayModeBar: isMap });
      if (isMap && lineage) {
        element.on("plotly_click", (event) => {
          const id = event.points[0].customdata;
          if (id) showSample(id);
        });
      }
      element.dataset.drawn = "true";
    }
  }

  function sayThatFiguresAreMissing() {
    document.querySelectorAll(".plot").forEach((element) => {
      element.classList.add("unavailable");
      element.textContent = "This browser is too old for the figures; the tables hold their numbers.";
    });
  }

  // Tabs: arrow keys move between them, as the ARIA authoring practices ask.

  function select(tab) {
    const tabs = [...tab.parentElement.querySelectorAll("[role=tab]")];
    for (const each of tabs) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", String(chosen));
      each.tabIndex = chosen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
    }
    draw();
  }

  document.querySelectorAll("[role=tab]").forEach((tab) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const tabs = [...tab.parentElement.querySelectorAll("[role=tab]")];
      const places = { ArrowRight: tabs.indexOf(tab) + 1, ArrowLeft: tabs.indexOf(tab) - 1, Home: 0, End: -1 };
      if (!(event.key in places)) return;
      event.preventDefault();
      const next = tabs.at(places[event.key] % tabs.length);
      select(next);
      next.focus();
    });
  });

  // Lineage. Texts come from models and files: they are only ever set as text.

  function node(name, text, attributes) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    return Object.assign(element, attributes || {});
  }

  function entry(list, name, value) {
    const row = node("div");
    const description = node("dd");
    if (value instanceof Node) description.append(value);
    else Object.assign(description, { textContent: value, dir: "auto" });
    row.append(node("dt", name), description);
    list.append(row);
  }

  function showSample(id) {
    const sample = lineage.samples[id];
    if (!sample) return;
    const chooser = document.getElementById("sample");
    chooser.value = id;
    const panel = document.getElementById("sample-lineage");
    const text = node("p", sample.text, { className: "sample-text", dir: "auto" });
    const facts = node("dl", undefined, { className: "attributes" });
    if (sample.label) entry(facts, "Label", sample.label);
    const copies = sample.copies > 1 ? `yes, ${sample.copies} times` : "yes";
    entry(facts, "In the dataset", `${sample.copies ? copies : "no"}; weight ${sample.weight.toPrecision(4)}`);
    if (sample.edited_from !== null) entry(facts, "Edited by a person; before", sample.edited_from);
    sample.attributes.forEach(([name, value]) => entry(facts, `Asked for: ${name}`, value));
    const shown = node("ul", undefined, { className: "examples" });
    sample.demonstrations.forEach((real) => shown.append(node("li", lineage.real[real] ?? real, { dir: "auto" })));
    if (sample.demonstrations.length) entry(facts, "Written from", shown);
    entry(facts, `Nearest real row, cosine ${sample.similarity.toFixed(3)}`, lineage.real[sample.nearest] ?? sample.nearest);
    entry(facts, "Written by", `${sample.model}, prompt ${sample.prompt}, seed ${sample.seed}, round ${sample.round}`);
    panel.replaceChildren(text, facts);
  }

  function brief(text) {
    const line = text.replace(/\s+/g, " ").trim();
    const characters = [...line];
    return characters.length > 60 ? characters.slice(0, 59).join("") + "…" : line;
  }

  function setUpLineage() {
    const section = document.querySelector(".lineage");
    const chooser = document.getElementById("sample");
    if (!section || !lineage) return;
    chooser.append(node("option", "Choose one", { value: "" }));
    for (const [id, sample] of Object.entries(lineage.samples)) {
      chooser.append(node("option", `${sample.copies ? "◆" : "×"} ${brief(sample.text)}`, { value: id }));
    }
    const move = (by) => {
      const n = chooser.options.length - 1;
      chooser.selectedIndex = chooser.selectedIndex ? ((chooser.selectedIndex - 1 + by + n) % n) + 1 : 1;
      showSample(chooser.value);
    };
    chooser.addEventListener("change", () => showSample(chooser.value));
    document.getElementById("previous").addEventListener("click", () => move(-1));
    document.getElementById("next").addEventListener("click", () => move(1));
    document.querySelectorAll("[data-sample]").forEach((button) => {
      button.hidden = !(button.dataset.sample in lineage.samples);
      button.addEventListener("click", () => {
        showSample(button.dataset.sample);
        const panel = document.getElementById("sample-lineage");
        panel.focus({ preventScroll: true });
        section.scrollIntoView();
      });
    });
    section.hidden = false;
  }

  // Paper is narrower than most screens, and figures do not shrink by themselves.

  window.addEventListener("beforeprint", () => {
    drawn.forEach((id) => {
      const tall = document.getElementById(id).classList.contains("tall");
      Plotly.relayout(id, { autosize: false, width: 640, height: tall ? 480 : 340 });
    });
  });
  window.addEventListener("afterprint", () => {
    drawn.forEach((id) => Plotly.relayout(id, { autosize: true, width: null, height: null }));
  });

  setUpLineage();
  if (typeof DecompressionStream === "undefined") sayThatFiguresAreMissing();
  else loadPlotly().then(draw);
})();
