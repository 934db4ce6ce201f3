// Numbers as the command line prints them: by the unit of the metric that a column is named after.

import { given } from "./dom.js";

const PLAIN = new Set(["number", "trial", "rung", "seed", "index", "revision", "samples", "weight_bits", "activation_bits"]);
const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export const missing = value => value === null || value === undefined || Number.isNaN(value);

// Four significant digits, as Python's ".4g".
export function short(value) {
  const text = Number(value).toPrecision(4);
  return text.includes("e") ? Number(text).toExponential().replace("e+", "e") : String(Number(text));
}

export function cell(column, value) {
  if (missing(value)) return "-";
  if (typeof value !== "number") return value === true ? "yes" : value === false ? "no" : String(value);
  if (PLAIN.has(column)) return String(value);
  const unit = (given.metrics[column.replace(/_error$/, "")] ?? {}).unit;
  if (unit === "ratio" || unit === "nats") return value.toFixed(4);
  if (unit === "bytes" || unit === "count") return grouped.format(value);
  if (unit === "ms") return value.toFixed(3);
  if (unit === "s") return value.toFixed(1);
  return short(value);
}

// A metric with its unit, as an axis is named.
export function label(metric) {
  const unit = (given.metrics[metric] ?? {}).unit;
  return !unit || unit === "ratio" || unit === "count" ? metric : `${metric} [${unit}]`;
}

// A tick's number: 25k, 1.5M, 0.05.
export function brief(value) {
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= size) return short(value / size) + letter;
  return value ? short(value) : "0";
}

// A count of trials: 99,506.
export const many = count => grouped.format(count);

export const percent = (share, digits = 1) => (missing(share) ? "-" : `${(100 * share).toFixed(digits)}%`);

// "59 s", "3:07" or "2:03:09".
export function clock(seconds) {
  if (missing(seconds)) return "-";
  const whole = Math.round(seconds), two = n => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60), hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${two(minutes % 60)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

// How long ago a moment was.
export function age(moment, now = Date.now()) {
  if (!moment) return "-";
  const seconds = Math.max(0, (now - Date.parse(moment)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}
