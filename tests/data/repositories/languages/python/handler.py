def handle(event, context):
    return "python"
