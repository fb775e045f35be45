// Timers, promises and workers in node, until TERM: ticks come in order, workers answer what they were asked.
const { Worker, isMainThread, parentPort } = require("worker_threads");
const crypto = require("crypto");
const hash = (text) => crypto.createHash("sha256").update(text).digest("hex");

function fail(why) {
    console.log(`FAIL: ${why}`);
    process.exit(1);
}

if (!isMainThread) {
    parentPort.on("message", (n) => parentPort.postMessage([n, hash(`number ${n}`)]));
} else {
    let ticks = 0, answers = 0, late = 0;
    const workers = [0, 1].map(() => new Worker(__filename));
    workers.forEach((worker) => {
        worker.on("message", ([n, digest]) => {
            if (digest !== hash(`number ${n}`)) fail(`worker answers ${digest} for ${n}`);
            answers++;
            setTimeout(() => worker.postMessage(n + 1), 1);
        });
        worker.on("error", (error) => fail(`worker: ${error}`));
        worker.postMessage(0);
    });
    let garbage = [];
    setInterval(() => {
        ticks++;
        garbage.push(new Array(1000).fill(ticks));
        if (garbage.length > 200) garbage = garbage.slice(100);
        if (garbage.some((row) => row[0] !== row[999])) fail("an array has changed");
    }, 5);
    setTimeout(() => console.log("READY"), 300);
    process.on("SIGTERM", () => {
        const [oldTicks, oldAnswers] = [ticks, answers];
        setTimeout(() => {
            if (ticks === oldTicks) fail("timers stand still");
            if (answers === oldAnswers) fail("workers stand still");
            console.log("OK");
            process.exit(0);
        }, 1000);
    });
}
