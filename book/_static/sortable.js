// A click (or Enter) on a heading sorts a table.sortable by that column; a second one reverses it.
document.addEventListener("DOMContentLoaded", () => {
  const value = (row, column) => (row.cells[column]?.textContent ?? "").trim().replace("−", "-");
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    if (!body || !table.tHead || table.querySelector("tbody [rowspan]:not([rowspan='1'])")) continue;
    for (const heading of table.tHead.querySelectorAll("th:not([colspan])")) {
      const before = [...heading.parentNode.cells].slice(0, heading.cellIndex);
      const column = before.reduce((n, cell) => n + cell.colSpan, 0);
      const sort = () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [value(row, column), row]);
        // numbers ("72.3 ± 0.4") before words, whichever way the numbers run
        rows.sort(([a], [b]) => {
          const [x, y] = [parseFloat(a), parseFloat(b)];
          if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
          return (up ? 1 : -1) * (isNaN(x) ? a.localeCompare(b) : x - y);
        });
        body.append(...rows.map(([, row]) => row));
      };
      heading.tabIndex = 0;
      heading.addEventListener("click", sort);
      heading.addEventListener("keydown", (event) => event.key === "Enter" && sort());
    }
  }
});
