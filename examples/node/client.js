// Writes, reads and deletes a key of a store, at any of its nodes. In the clone:
//   npm install --prefix target/node thrift@0.17
//   thrift -r --gen js:node -out target/node thrift/diststore.thrift
//   NODE_PATH=target/node:target/node/node_modules node examples/node/client.js localhost 9900
const thrift = require("thrift");
const Store = require("Store");

async function main(host, port) {
    const connection = thrift.createConnection(host, Number(port), {
        transport: thrift.TBufferedTransport, protocol: thrift.TBinaryProtocol, timeout: 12000 });
    connection.on("error", fail);
    connection.on("timeout", () => fail("the node does not answer"));
    const store = thrift.createClient(Store, connection);
    await store.write(Buffer.from("b"), Buffer.from("banana")); // Returns when all owners have it.
    console.log((await store.fetch(Buffer.from("b"))).value.toString());
    console.log("deleted:", await store.unset(Buffer.from("b")));
    connection.end();
}
const fail = (error) => { console.error(error.reason || error.message || error); process.exit(1); };
main(...process.argv.slice(2)).catch(fail);
