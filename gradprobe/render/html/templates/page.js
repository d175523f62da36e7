"use strict";
(() => {
  document.documentElement.className = "js";
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const data = JSON.parse(document.getElementById("data").textContent);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const make = (tag, text, ...inside) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    element.append(...inside);
    return element;
  };
  all(".controls").forEach((controls) => (controls.hidden = false));

  // A number as the text beside it has it: three digits, or a power of ten.
  const number = (value) => {
    if (value === null || value === undefined) return "-";
    if (value === 0 || value === 1) return String(value);
    const size = Math.abs(value);
    if (size >= 999.5 && size < 9999.5) return Math.round(value).toLocaleString("en");
    if (size >= 1e-3 && size < 999.5) return value.toPrecision(3);
    return value.toExponential(1).replace("+", "");
  };

  // ---- tables: a header sorts, a filter hides, a button folds, a row opens

  const valueOf = (text) => {
    const value = parseFloat(text.replace(/[,%<>\s]/g, ""));
    return text.trim() === "inf" ? Infinity : Number.isNaN(value) ? null : value;
  };
  const compare = (a, b) => {
    const [x, y] = [valueOf(a), valueOf(b)];
    if (x !== null && y !== null) return x - y;
    if (x === null && y === null) return a.localeCompare(b, "en", { numeric: true });
    return x === null ? -1 : 1;
  };
  const close = (table) => all(".detail", table).forEach((row) => toggle(row.previousSibling));
  const rowsOf = (table) => [...table.tBodies[0].rows].filter((row) => row.className !== "detail");

  const sort = (table, column, head) => {
    close(table);
    const was = head.getAttribute("aria-sort");
    all("[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    const rows = rowsOf(table);
    if (was === "descending") {
      rows.sort((a, b) => a.dataset.i - b.dataset.i);
    } else {
      const sign = was === "ascending" ? -1 : 1;
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent;
      const missing = (row) => text(row) === "-" || text(row) === "NaN";
      rows.sort((a, b) => missing(a) - missing(b) || sign * compare(text(a), text(b)));
    }
    table.tBodies[0].append(...rows);
  };

  const reportAt = (path) => path.split(".").reduce((value, key) => (key ? value[key] : value), data);
  const words = (key) => key.replaceAll("_", " ");
  const pair = (name, value) => make("div", "", make("dt", name), make("dd", value));

  const detailOf = (table, row) => {
    const report = reportAt(table.dataset.at);
    const values = report.rows[row.dataset.i];
    const before = report.rows[row.dataset.i - 1];
    const list = make("dl");
    for (const [key, value] of Object.entries(values)) {
      if (typeof value === "number") {
        const whole = ["parameters", "line", "column", "level"].includes(key);
        list.append(pair(words(key), whole ? value.toLocaleString("en") : number(value)));
      } else if (value && typeof value === "object") {
        for (const [name, part] of Object.entries(value)) {
          const error = part && part.error ? ` ± ${number(part.error)}` : "";
          list.append(pair(name, number(part && typeof part === "object" ? part.value : part) + error));
        }
      } else if (value && !["name", "kind"].includes(key)) {
        list.append(pair(words(key), value));
      }
    }
    if (before && before.gradient_norm !== null && values.gradient_norm && before.level === values.level) {
      list.append(pair("gradient, this row back", "×" + number(before.gradient_norm / values.gradient_norm)));
    }
    const cell = make("td", "", list);
    for (const link of all("a[href^='#']", row)) {
      const finding = document.getElementById(link.hash.slice(1));
      if (finding) cell.append(...all("p", finding).map((p) => p.cloneNode(true)));
    }
    cell.colSpan = row.cells.length;
    return cell;
  };

  const toggle = (row) => {
    const table = row.closest("table");
    if (row.dataset.open) {
      location.hash = row.dataset.open;
      show();
    } else if (row.nextSibling && row.nextSibling.className === "detail") {
      row.nextSibling.remove();
      row.setAttribute("aria-expanded", "false");
    } else if (table.dataset.at !== undefined) {
      const detail = make("tr", "", detailOf(table, row));
      detail.className = "detail";
      row.after(detail);
      row.setAttribute("aria-expanded", "true");
    }
  };

  for (const table of all("table.rows")) {
    const body = table.tBodies[0];
    for (const text of all("tr", body).flatMap((row) => [...row.childNodes]).filter((n) => n.nodeType === 3)) text.remove();
    for (const node of [...body.childNodes]) if (node.nodeType === 3) node.remove();
    rowsOf(table).forEach((row, index) => (row.dataset.i = index));
    all("thead th", table).forEach((head, column) => {
      if (head.classList.contains("scale")) return;
      const button = make("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, column, head));
    });
    if (table.classList.contains("plain") || !table.id) continue;
    rowsOf(table).forEach((row, index) => (row.tabIndex = index ? -1 : 0));
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && row.className !== "detail" && !event.target.closest("a")) toggle(row);
    });
    body.addEventListener("keydown", (event) => {
      const row = event.target;
      if (row.tagName !== "TR") return;
      const seen = rowsOf(table).filter((other) => other.offsetParent);
      const place = seen.indexOf(row);
      const next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: seen.length - 1 }[event.key];
      if (event.key === "Enter" || event.key === " ") toggle(row);
      else if (seen[next]) focus(seen[next]);
      else return;
      event.preventDefault();
    });
  }
  const focus = (row) => {
    rowsOf(row.closest("table")).forEach((other) => (other.tabIndex = -1));
    row.tabIndex = 0;
    row.focus();
  };

  for (const button of all("[data-unfold]")) {
    const body = document.getElementById(button.dataset.unfold).tBodies[0];
    const fold = (few) => {
      body.classList.toggle("few", few);
      button.textContent = few ? button.dataset.all : button.dataset.few;
    };
    fold(true);
    button.addEventListener("click", () => fold(!body.classList.contains("few")));
  }
  for (const input of all("[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    input.addEventListener("input", () => {
      close(table);
      const wanted = input.value.trim().toLowerCase();
      table.tBodies[0].classList.toggle("few", !wanted && Boolean(document.querySelector(`[data-unfold="${table.id}"]`)));
      for (const row of rowsOf(table)) row.classList.toggle("no", !row.textContent.toLowerCase().includes(wanted));
    });
  }

  // What a link leads to is opened and unfolded.
  const show = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    if (target.tagName === "TR") {
      target.classList.remove("f", "no");
      focus(target);
    }
    target.scrollIntoView({ block: "nearest" });
  };
  addEventListener("hashchange", show);
  show();

  // ---- the curve: the row under the pointer is named, and a click goes to it

  for (const chart of all("[data-rows]")) {
    const table = document.getElementById(chart.dataset.rows);
    const cursor = chart.querySelector(".cursor");
    const output = document.getElementById(table.id.replace(/rows$/, "hover"));
    const rows = rowsOf(table);
    const at = (event) => {
      const box = chart.getBoundingClientRect();
      const place = Math.round(((event.clientX - box.left) / box.width) * (rows.length - 1));
      return Math.min(rows.length - 1, Math.max(0, place));
    };
    chart.addEventListener("pointermove", (event) => {
      const index = at(event);
      const x = (100 * index) / (rows.length - 1);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.classList.add("on");
      const cells = rows[index].cells;
      output.textContent = `${cells[0].textContent} ${cells[1].textContent}: ${cells[2].textContent}`;
    });
    chart.addEventListener("pointerleave", () => {
      cursor.classList.remove("on");
      output.textContent = "";
    });
    chart.addEventListener("click", (event) => {
      rows[at(event)].classList.remove("f", "no");
      focus(rows[at(event)]);
    });
  }

  // ---- the block, step by step

  for (const stepper of all(".stepper")) {
    const parts = all("[data-step]", stepper);
    const last = Number(stepper.dataset.steps) - 1;
    const [back, forth] = all("[data-go]", stepper);
    const run = stepper.querySelector("[data-run]");
    let step = 0;
    let timer = 0;
    const go = (to) => {
      step = Math.min(last, Math.max(0, to));
      for (const part of parts) {
        part.classList.toggle("now", Number(part.dataset.step) === step);
        part.classList.toggle("later", Number(part.dataset.step) > step);
      }
      back.disabled = step === 0;
      forth.disabled = step === last;
      stepper.querySelector("output").textContent = `${step + 1} of ${last + 1}`;
      if (step === last) stop();
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      run.textContent = "▶ Play";
    };
    back.addEventListener("click", () => (stop(), go(step - 1)));
    forth.addEventListener("click", () => (stop(), go(step + 1)));
    run.addEventListener("click", () => {
      if (timer) return stop();
      if (step === last) go(0);
      run.textContent = "❚❚ Pause";
      timer = setInterval(() => go(step + 1), 1400);
    });
    all("li", stepper).forEach((item, index) => item.addEventListener("click", () => (stop(), go(index))));
    addEventListener("keydown", (event) => {
      const to = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: last }[event.key];
      if (to === undefined || event.altKey || event.ctrlKey || event.metaKey || event.target.tagName === "INPUT") return;
      event.preventDefault();
      stop();
      go(to);
    });
    go(0);
  }

  // ---- the columns: the gradient runs down from the loss

  for (const button of all("[data-play]")) {
    const columns = all(".cells").map((column) => all("rect", column));
    const longest = Math.max(...columns.map((cells) => cells.length));
    let timer = 0;
    const light = (count) => columns.forEach((cells) => cells.forEach((cell, index) => cell.classList.toggle("dark", index >= count)));
    button.addEventListener("click", () => {
      clearInterval(timer);
      if (still) return light(longest);
      let count = 0;
      const step = Math.max(1, Math.round(longest / 120));
      light(0);
      timer = setInterval(() => {
        light((count += step));
        if (count >= longest) clearInterval(timer);
      }, Math.min(140, 3600 / longest));
    });
  }
})();
