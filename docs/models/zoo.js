// Filter and sort the table of all models. Without this script it is a plain table.
(() => {
  const table = document.querySelector("#all-models ~ .md-typeset__scrollwrap table, #all-models ~ table");
  if (!table) return;
  document.body.classList.add("zoo");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const text = (row, column) => row.cells[column].textContent.trim();

  const bar = document.createElement("div");
  bar.className = "zoo-bar";
  const search = document.createElement("input");
  Object.assign(search, { type: "search", placeholder: "Search models" });
  search.setAttribute("aria-label", "Search models");
  const count = document.createElement("output");

  const filters = ["Sensors", "Licence", "Kind"].map((name) => {
    const column = heads.findIndex((head) => head.textContent.trim() === name);
    const parts = (row) => text(row, column).split(", ");
    const select = document.createElement("select");
    select.setAttribute("aria-label", name);
    select.add(new Option({ Sensors: "All sensors", Licence: "All licences", Kind: "All kinds" }[name], ""));
    for (const value of [...new Set(rows.flatMap(parts))].sort()) select.add(new Option(value, value));
    select.addEventListener("change", show);
    return { select, keeps: (row) => !select.value || parts(row).includes(select.value) };
  });
  search.addEventListener("input", show);
  bar.append(search, ...filters.map((filter) => filter.select), count);
  (table.closest(".md-typeset__scrollwrap") ?? table).before(bar);

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const line = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => line.includes(word)) && filters.every((filter) => filter.keeps(row)));
    }
    count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} models`;
  }

  // "7.61 M" and "446 k" are sizes; "none" counts as 0.
  const isSize = (value) => /^[\d.]+( [Mk])?$/.test(value);
  const size = (value) => (parseFloat(value) || 0) * ({ M: 1e6, k: 1e3 }[value.slice(-1)] ?? 1);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = rows.some((row) => isSize(text(row, column)));
    const order = numeric ? (a, b) => size(a) - size(b) : (a, b) => a.localeCompare(b);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...rows.sort((a, b) => sign * order(text(a, column), text(b, column))));
    });
  });
  show();
})();
