import { createServer } from "node:http";
import { count } from "./lib/words.js";

const server = createServer(async (request, response) => {
  let text = "";
  for await (const piece of request) text += piece;
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(count(text)) + "\n");
});
server.listen(8080, () => console.log("counting words on port 8080"));
process.on("SIGINT", () => {
  console.log("stopping");
  server.close();
  server.closeAllConnections();
});
