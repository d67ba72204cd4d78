// Uploads measurements with @divviup/dap. Standard input: {"task": {id, leader, helper, timePrecisionSeconds},
// "vdaf": {type, …}, "time": seconds since the epoch, "measurements": […]}.
import { Task } from "@divviup/dap";
import { text } from "node:stream/consumers";

const { task, vdaf, time, measurements } = JSON.parse(await text(process.stdin));
const client = new Task({ ...task, ...vdaf });
const timestamp = new Date(time * 1000);
for (const measurement of measurements) await client.sendMeasurement(measurement, { timestamp });
