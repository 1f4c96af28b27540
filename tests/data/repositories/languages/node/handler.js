module.exports = () => "node";
