import assert from "node:assert/strict";
import { test } from "node:test";
import { count } from "../lib/words.js";

test("words are counted whatever their case", () => {
  assert.deepEqual(count("One two, ONE."), { one: 2, two: 1 });
});

test("no text has no words", () => {
  assert.deepEqual(count(""), {});
});
