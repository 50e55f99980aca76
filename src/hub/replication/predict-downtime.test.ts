// The prediction of a cut-over's downtime: what it is made of, how sure it is, and what it is compared with afterwards.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { compareDowntime, predictDowntime, type PartSamples } from "./predict-downtime.ts";

const none: PartSamples = { own: [], others: [] };
const own = (...seconds: readonly number[]): PartSamples => ({ own: seconds, others: [99] });
const others = (...seconds: readonly number[]): PartSamples => ({ own: [], others: seconds });

describe("predictDowntime", () => {
  it("is sure of what was measured of the machine itself, by the middle of its samples", () => {
    const prediction = predictDowntime({ freeze: own(2), compare: own(0.1), fence: own(4), boot: own(30, 20, 22) });
    assert.deepEqual([prediction.seconds, prediction.confidence], [28.1, "high"]);
    assert.ok(prediction.lowSeconds > 20 && prediction.lowSeconds < 28.1, String(prediction.lowSeconds));
    assert.ok(prediction.highSeconds > 37 && prediction.highSeconds < 46, String(prediction.highSeconds));
  });

  it("takes other machines' figures where it has none, with a wider range, and says what it assumes", () => {
    const measured = predictDowntime({ freeze: own(2), compare: own(0.1), fence: own(4), boot: own(22) });
    const borrowed = predictDowntime({ freeze: own(2), compare: own(0.1), fence: own(4), boot: others(22) });
    const guessed = predictDowntime({ freeze: own(2), compare: own(0.1), fence: own(4), boot: none });
    assert.deepEqual([measured.confidence, borrowed.confidence, guessed.confidence], ["high", "medium", "low"]);
    assert.equal(borrowed.seconds, measured.seconds);
    assert.ok(borrowed.highSeconds > measured.highSeconds && guessed.highSeconds > borrowed.highSeconds);
    assert.deepEqual(
      guessed.parts.map(({ name, basis }) => [name, basis]),
      [
        ["freeze", "own"],
        ["compare", "own"],
        ["fence", "own"],
        ["boot", "assumed"],
      ],
    );
  });

  it("leaves what hardly matters out of its confidence", () => {
    assert.equal(predictDowntime({ freeze: own(20), compare: others(0.1), fence: own(20), boot: own(60) }).confidence, "high");
  });

  it("is compared with what came", () => {
    const prediction = predictDowntime({ freeze: own(2), compare: own(0), fence: own(4), boot: own(14) });
    assert.deepEqual(compareDowntime(prediction, 22), {
      actualSeconds: 22,
      predictedSeconds: 20,
      differencePercent: 10,
      isWithinRange: true,
    });
    assert.equal(compareDowntime(prediction, 200).isWithinRange, false);
  });
});
