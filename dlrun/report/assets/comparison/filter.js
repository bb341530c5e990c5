"use strict";
// The words of the filter: `model=cnn lr>=1e-3 val/acc>0.9 status!=failed`; a word without a sign is looked for in the row.
const SIGNS = /^(.+?)(!=|>=|<=|=|>|<|~)(.*)$/u;

const columnOf = (word) => { // by its key, its title, or the end of one, if that is of one column
  const wanted = word.toLowerCase();
  const named = (column) => [column.key.toLowerCase(), column.title.toLowerCase()];
  const whole = columns.find((column) => named(column).includes(wanted));
  if (whole) return whole;
  const ends = columns.filter((column) => named(column).some((name) => name.endsWith(`.${wanted}`) || name.endsWith(`/${wanted}`)));
  const chosen = ends.length > 1 ? ends.filter((column) => !column.hidden) : ends;
  if (chosen.length === 1) return chosen[0];
  throw new Error(chosen.length ? `${word} may be ${chosen.map((column) => column.title).join(" or ")}` : `there is no column ${word}`);
};
const holds = (sign, value, text, said) => {
  if (sign === "~") return text.toLowerCase().includes(said.toLowerCase());
  const number = said.trim() === "" ? NaN : Number(said.replace(/%$/, "")) / (said.endsWith("%") ? 100 : 1);
  if (sign === "=" || sign === "!=") {
    const same = said.split("|").some((word) => text.toLowerCase() === word.toLowerCase()
      || (typeof value === "number" && word !== "" && value === Number(word)));
    return same === (sign === "=");
  }
  if (typeof value !== "number") return false;
  return { ">": value > number, "<": value < number, ">=": value >= number, "<=": value <= number }[sign];
};
const condition = (word) => { // run → whether it is shown
  const [, name, sign, said] = SIGNS.exec(word) || [];
  if (!name) {
    const wanted = word.toLowerCase();
    return (run) => runs[run].words.includes(wanted);
  }
  if ("<>=".includes(sign[0]) && sign !== "=" && Number.isNaN(Number(said.replace(/%$/, "") || NaN))) {
    throw new Error(`${word}: a number is missing after ${sign}`);
  }
  if (name.toLowerCase() === "status") return (run) => holds(sign, runs[run].status, runs[run].status, said);
  if (name.toLowerCase() === "run") return (run) => holds(sign, runs[run].name, runs[run].name, said);
  const column = columnOf(name);
  return (run) => holds(sign, column.values[run], column.texts[run], said);
};
const conditions = (text) => { // words in quotes are one
  const words = text.match(/(?:[^\s"]|"[^"]*"?)+/gu) || [];
  return words.map((word) => condition(word.replaceAll('"', "")));
};
