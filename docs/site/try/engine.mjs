// The worker in which Python runs: loads Pyodide and the packages of the site once, then answers.
import { loadPyodide } from "./pyodide/pyodide.mjs";

async function started() {
  const packages = fetch(new URL("engine.zip", import.meta.url)).then((each) => each.arrayBuffer());
  const python = await loadPyodide({ indexURL: new URL("pyodide/", import.meta.url).href });
  python.unpackArchive(await packages, "zip", { extractDir: "/engine" });
  python.runPython("import sys; sys.path.insert(0, '/engine')");
  return python.pyimport("vtd.page.calls");
}

const engine = started();
engine.then(
  (calls) => postMessage({ ready: JSON.parse(calls.about()) }),
  (error) => postMessage({ failed: String(error) }),
);

onmessage = async ({ data: { id, call, values } }) => {
  try {
    const result = (await engine)[call](...values);
    // Bytes come as a proxy of a Python object: copied, because the page can't have that.
    const copied = result?.toJs ? result.toJs() : result;
    result?.destroy?.();
    postMessage({ id, result: copied });
  } catch (error) {
    // The last line of a traceback is the message; the rest is of no use on a page.
    const lines = String(error.message ?? error).trim().split("\n");
    postMessage({ id, error: lines[lines.length - 1].replace(/^[\w.]+: /, "") });
  }
};
